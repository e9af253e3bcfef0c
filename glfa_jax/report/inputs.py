"""Reads a finished run folder and checks it; what is wrong is one sentence."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax import config as config_module
from glfa_jax.config import Config, ConfigError
from glfa_jax.errors import InputError
from glfa_jax.files import read_arrays, read_json, read_text, reading
from glfa_jax.results import Better

# Folder of each training stage, its name for a reader.
STAGES = {
    "pretrain": "Autoencoder fine-tuning",
    "contrast": "Stage 1: contrastive",
    "cotrain": "Stage 2: co-training",
}


class ReportError(InputError):
    """The run folder cannot be reported on; the message says what is missing and where."""


@dataclass(frozen=True)
class Metric:
    """One scored quantity. `low` and `high` bound the 95 % interval; `approximate` says that they
    were derived here from `std` and `n` because the scorer gave none."""

    metric: str
    variant: str
    better: Better
    mean: float
    std: float | None
    n: int
    chance: float | None
    p_value: float | None
    subject: str
    method: str
    low: float | None
    high: float | None
    approximate: bool

    @property
    def name(self) -> str:
        return f"{self.metric} ({self.variant})" if self.variant else self.metric


@dataclass(frozen=True)
class Clip:
    """One decoded clip and the clip that was shown; paths are absolute, a GIF may be absent."""

    subject: str
    clip: str
    caption: str
    generated: Path
    truth: Path
    generated_gif: Path | None
    truth_gif: Path | None
    scores: dict[str, float]


@dataclass(frozen=True)
class Maps:
    """Flat maps (s, h, w) in z-scores, one stimulus, and mean inter-subject correlations.

    Where known: `one_kernel`, the correlation after a layer whose local part is alike everywhere;
    `undone`, the share of the true displacement between subjects that the layers take away
    (simulated data).
    """

    mask: np.ndarray
    subjects: list[str]
    before: np.ndarray
    after: np.ndarray
    isc_before: float
    isc_after: float
    one_kernel: float | None
    undone: float | None


@dataclass(frozen=True)
class Run:
    config: Config
    config_text: str
    metrics: list[Metric]
    clips: list[Clip]
    maps: Maps | None
    logs: dict[str, list[dict[str, float]]]


def read(run_dir: Path) -> Run:
    """Everything the page needs. Raises ReportError."""
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise ReportError(f"{run_dir}: no such run folder.")
    try:
        config = config_module.load(run_dir / "config.yaml")
    except ConfigError as error:
        raise ReportError(f"{error}.") from None
    stages = ("pretrain",) if config.method == "lea" else tuple(STAGES)  # LEA fits without steps
    return Run(
        config=config,
        config_text=(run_dir / "config.yaml").read_text(encoding="utf-8"),
        metrics=_metrics(run_dir / "metrics.json"),
        clips=read_clips(run_dir / "samples" / "index.json"),
        maps=_maps(run_dir / "alignment.npz"),
        logs={stage: _log(run_dir / stage / "log.jsonl") for stage in stages},
    )


def _json_list(path: Path, maker: str) -> list[dict[str, Any]]:
    if not path.exists():
        raise ReportError(f"{path}: missing; {maker} writes it, so run that first.")
    rows = read_json(path, error=ReportError)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f"{path}: must be a list of at least one object; {maker} writes it.")
    return rows


def _field(row: dict[str, Any], key: str, path: Path, position: int) -> Any:
    if key not in row:
        raise ReportError(f"{path}: entry {position} has no {key!r}.")
    return row[key]


def _number(value: Any, key: str, path: Path, position: int) -> float | None:
    """None for null and for what is not finite."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReportError(f"{path}: entry {position}: {key!r} must be a number, is {value!r}.")
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _better(row: dict[str, Any], path: Path, position: int) -> Better:
    match row.get("better"):
        case "higher" | "lower" as better:
            return better
        case given:
            raise ReportError(
                f"{path}: entry {position}: 'better' must be higher or lower, is {given!r}; "
                "eval.score writes it, so score the run again."
            )


def _metrics(path: Path) -> list[Metric]:
    out = []
    for position, row in enumerate(_json_list(path, "eval.score")):
        numbers = {
            key: _number(_field(row, key, path, position), key, path, position)
            for key in ("mean", "std", "n", "chance", "p_value")
        }
        mean, std, count = numbers["mean"], numbers["std"], numbers["n"]
        if mean is None or count is None:
            raise ReportError(f"{path}: entry {position}: 'mean' and 'n' must be finite.")
        low, high = (_number(row.get(key), key, path, position) for key in ("low", "high"))
        approximate = low is None or high is None
        if approximate:
            low = high = None
            if std is not None and count > 1:
                half = 1.96 * std / math.sqrt(count)
                low, high = mean - half, mean + half
        out.append(
            Metric(
                metric=str(_field(row, "metric", path, position)),
                variant=str(row.get("variant") or ""),
                better=_better(row, path, position),
                mean=mean,
                std=std,
                n=int(count),
                chance=numbers["chance"],
                p_value=numbers["p_value"],
                subject=str(_field(row, "subject", path, position)),
                method=str(_field(row, "method", path, position)),
                low=low,
                high=high,
                approximate=approximate and low is not None,
            )
        )
    return out


def read_clips(path: Path) -> list[Clip]:
    """An index of samples. Raises ReportError."""
    root = path.parent.resolve()

    def existing(name: str, position: int) -> Path:
        try:
            found = (root / name).resolve()
            there = found.is_file()
        except (OSError, ValueError):  # no name that a file can have
            found, there = root, False
        # The page embeds what it finds: never a file from outside the run.
        if not found.is_relative_to(root):
            raise ReportError(f"{path}: entry {position} names {name!r}, outside {path.parent}.")
        if not there:
            raise ReportError(f"{path}: entry {position} names {name!r}, which is not there.")
        return found

    out = []
    for position, row in enumerate(_json_list(path, "eval.sample")):
        files: dict[str, Path | None] = {}
        for key in ("generated", "truth"):
            files[key] = existing(str(_field(row, key, path, position)), position)
        for key in ("generated_gif", "truth_gif"):
            files[key] = existing(str(row[key]), position) if row.get(key) else None
        given = row.get("scores") or {}
        if not isinstance(given, dict):
            raise ReportError(f"{path}: entry {position}: 'scores' must map names to numbers.")
        scores = {str(key): _number(v, str(key), path, position) for key, v in given.items()}
        out.append(
            Clip(
                subject=str(_field(row, "subject", path, position)),
                clip=str(_field(row, "clip", path, position)),
                caption=str(row.get("caption") or ""),
                scores={key: value for key, value in scores.items() if value is not None},
                **files,  # type: ignore[arg-type]
            )
        )
    return out


_NUMBERS = ("isc_before", "isc_after", "isc_one_kernel", "undone")


def _maps(path: Path) -> Maps | None:
    if not path.exists():
        return None
    held = read_arrays(path, "archive of maps", error=ReportError)
    needed = ("mask", "subjects", "before", "after", "isc_before", "isc_after")
    missing = [key for key in needed if key not in held]
    if missing:
        raise ReportError(f"{path}: lacks {', '.join(missing)}.")
    with reading(path, "archive of maps", error=ReportError):
        mask = held["mask"].astype(bool)
        before, after = (
            held[name].astype(float, casting="same_kind") for name in ("before", "after")
        )
        numbers = {name: float(array) for name, array in held.items() if name in _NUMBERS}
    expected = (held["subjects"].size, *mask.shape)
    if mask.ndim != 2 or not mask.any() or before.shape != expected or after.shape != expected:
        raise ReportError(
            f"{path}: before {before.shape} and after {after.shape} must both be {expected}, "
            "one map per subject on a mask that holds cortex."
        )
    known = {
        name: value if math.isfinite(value := numbers.get(key, math.nan)) else None
        for name, key in (
            ("one_kernel", "isc_one_kernel"),
            ("undone", "undone"),
        )
    }
    return Maps(
        mask=mask,
        subjects=[str(subject) for subject in held["subjects"].ravel()],
        before=before,
        after=after,
        isc_before=numbers["isc_before"],
        isc_after=numbers["isc_after"],
        **known,
    )


def _log(path: Path) -> list[dict[str, float]]:
    """Log entries in step order, metrics beside `step` and `time` or under `metrics`; after a
    resume the later entry of a step counts."""
    if not path.exists():
        return []
    lines = read_text(path, error=ReportError).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    entries: dict[float, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            values = entry.pop("metrics", {}) | entry
            entries[entry["step"]] = {name: float(value) for name, value in values.items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            if number == len(lines):  # a run that was stopped while writing
                break
            raise ReportError(f"{path}: line {number} is no JSON object with a step.") from None
    return [entries[step] for step in sorted(entries)]
