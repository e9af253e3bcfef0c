"""Reads a finished run folder and checks it; what is wrong is one sentence."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from glfa_jax import config as config_module
from glfa_jax.config import Config, ConfigError
from glfa_jax.errors import InputError
from glfa_jax.files import read_arrays, read_json, reading
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
    """Flat maps (s, h, w) in z-scores, one stimulus, and mean inter-subject correlations (isc).

    isc_one_kernel: after a layer whose local part is alike everywhere. undone: the share of the
    true displacement between subjects that the layers take away (simulated data).
    correlation_before, correlation_after: (h, w), with a decoded subject, at every pixel.
    shifts: (s, h, w, 2), rows and columns in pixels from where a layer fetches a pixel's signal.
    displacements: the same from a pixel to where the common map holds what the subject has there.
    curvature: (h, w), positive in sulci. pixel_mm: edge of a pixel.
    """

    mask: np.ndarray
    subjects: list[str]
    before: np.ndarray
    after: np.ndarray
    isc_before: float | None
    isc_after: float | None
    isc_one_kernel: float | None
    undone: float | None
    correlation_before: np.ndarray | None = None
    correlation_after: np.ndarray | None = None
    shifts: np.ndarray | None = None
    displacements: np.ndarray | None = None
    curvature: np.ndarray | None = None
    pixel_mm: float | None = None


@dataclass(frozen=True)
class Log:
    """Entries in the order of their steps. damaged: lines that are no JSON object with a step."""

    entries: list[dict[str, float]]
    damaged: int


@dataclass(frozen=True)
class Run:
    config: Config
    config_text: str
    metrics: list[Metric]
    clips: list[Clip]
    maps: Maps | None
    logs: dict[str, Log]


def read(run_dir: Path) -> Run:
    """Everything the page needs. Raises ReportError."""
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise ReportError(f"{run_dir}: no such run folder.")
    try:
        config = config_module.load(run_dir / "config.yaml")
    except ConfigError as error:
        raise ReportError(f"{error}.") from None
    regression = config.method == "lea"  # which is fitted without steps
    left_out = {"contrast": regression, "cotrain": not config.cotrains}
    stages = [name for name in STAGES if not left_out.get(name)]
    return Run(
        config=config,
        config_text=(run_dir / "config.yaml").read_text(encoding="utf-8"),
        metrics=[_metric(entry) for entry in _entries(run_dir / "metrics.json", "eval.score")],
        clips=read_clips(run_dir / "samples" / "index.json"),
        maps=_maps(run_dir / "alignment.npz"),
        logs={stage: _log(run_dir / stage / "log.jsonl") for stage in stages},
    )


@dataclass(frozen=True)
class _Entry:
    """One object of the list in a file."""

    content: dict[str, Any]
    path: Path
    position: int

    def error(self, says: str) -> ReportError:
        return ReportError(f"{self.path}: entry {self.position}{says}")

    def field(self, key: str) -> Any:
        if key not in self.content:
            raise self.error(f" has no {key!r}.")
        return self.content[key]

    def text(self, key: str) -> str:
        return str(self.content.get(key) or "")

    def number(self, key: str, value: Any) -> float | None:
        """None for null and for what is not finite."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f": {key!r} must be a number, is {value!r}.")
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # a whole number of hundreds of digits
            return None

    def better(self) -> Better:
        if (given := self.content.get("better")) not in get_args(Better):
            raise self.error(
                f": 'better' must be higher or lower, is {given!r}; eval.score writes it, so score "
                "the run again."
            )
        return cast(Better, given)

    def file(self, key: str) -> Path:
        """A file that is there. The page embeds what it finds: never one from outside the run."""
        root, name = self.path.parent.resolve(), str(self.field(key))
        try:
            found = (root / name).resolve()
            there = found.is_file()
        except (OSError, ValueError):  # no name that a file can have
            found, there = root, False
        if not found.is_relative_to(root):
            raise self.error(f" names {name!r}, outside {self.path.parent}.")
        if not there:
            raise self.error(f" names {name!r}, which is not there.")
        return found


def _entries(path: Path, maker: str) -> list[_Entry]:
    if not path.exists():
        raise ReportError(f"{path}: missing; {maker} writes it, so run that first.")
    rows = read_json(path, error=ReportError)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f"{path}: must be a list of at least one object; {maker} writes it.")
    return [_Entry(row, path, position) for position, row in enumerate(rows)]


def _metric(entry: _Entry) -> Metric:
    names = ("mean", "std", "n", "chance", "p_value")
    mean, std, count, chance, p_value = (entry.number(key, entry.field(key)) for key in names)
    if mean is None or count is None:
        raise entry.error(": 'mean' and 'n' must be finite.")
    low, high = (entry.number(key, entry.content.get(key)) for key in ("low", "high"))
    approximate = low is None or high is None
    if approximate:
        low = high = None
        if std is not None and count > 1:
            half = 1.96 * std / math.sqrt(count)
            low, high = mean - half, mean + half
    return Metric(
        metric=str(entry.field("metric")),
        variant=entry.text("variant"),
        better=entry.better(),
        mean=mean,
        std=std,
        n=int(count),
        chance=chance,
        p_value=p_value,
        subject=str(entry.field("subject")),
        method=str(entry.field("method")),
        low=low,
        high=high,
        approximate=approximate and low is not None,
    )


def read_clips(path: Path) -> list[Clip]:
    """An index of samples. Raises ReportError."""
    return [_clip(entry) for entry in _entries(path, "eval.sample")]


def _clip(entry: _Entry) -> Clip:
    given = entry.content.get("scores") or {}
    if not isinstance(given, dict):
        raise entry.error(": 'scores' must map names to numbers.")
    scores = {str(key): entry.number(str(key), value) for key, value in given.items()}
    return Clip(
        subject=str(entry.field("subject")),
        clip=str(entry.field("clip")),
        caption=entry.text("caption"),
        generated=entry.file("generated"),
        truth=entry.file("truth"),
        generated_gif=entry.file("generated_gif") if entry.text("generated_gif") else None,
        truth_gif=entry.file("truth_gif") if entry.text("truth_gif") else None,
        scores={key: value for key, value in scores.items() if value is not None},
    )


_NUMBERS = ("isc_before", "isc_after", "isc_one_kernel", "undone", "pixel_mm")
# What earlier versions did not keep: for each pixel one value, or two of each subject.
_OF_PIXELS = ("correlation_before", "correlation_after", "curvature")
_OF_SUBJECTS = ("shifts", "displacements")


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
        more: dict[str, Any] = {
            name: held[name].astype(float, casting="same_kind")
            for name in (*_OF_PIXELS, *_OF_SUBJECTS)
            if name in held
        }
    expected = (held["subjects"].size, *mask.shape)
    if mask.ndim != 2 or not mask.any() or before.shape != expected or after.shape != expected:
        raise ReportError(
            f"{path}: before {before.shape} and after {after.shape} must both be {expected}, "
            "one map per subject on a mask that holds cortex."
        )
    for name, array in more.items():
        wanted = mask.shape if name in _OF_PIXELS else (*expected, 2)
        if array.shape != wanted:
            raise ReportError(f"{path}: {name} {array.shape} must be {wanted}, as before is.")
    subjects = [str(subject) for subject in held["subjects"].ravel()]
    known = {n: v if math.isfinite(v := numbers.get(n, math.nan)) else None for n in _NUMBERS}
    return Maps(mask, subjects, before, after, **known, **more)


def _log(path: Path) -> Log:
    """Metrics stand beside `step` and `time` or under `metrics`; of a step that stands there twice,
    as after a resume, the later line counts. Lines that are damaged are counted and left out, as
    training itself does."""
    if not path.exists():
        return Log([], 0)
    with reading(path, "training log", error=ReportError):
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    entries: dict[float, dict[str, float]] = {}
    damaged = 0
    for line in lines:
        try:
            entry = json.loads(line)
            values = entry.pop("metrics", {}) | entry
            numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
            if not math.isfinite(numbers["step"]):
                raise ValueError("a step must be finite")
            entries[numbers["step"]] = numbers
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            damaged += 1
    return Log([entries[step] for step in sorted(entries)], damaged)
