"""`scores.json`: what a scored run holds, clip by clip, and how it was measured.

Scorers build a `Scores` and write it; whatever compares or draws runs reads it. Nothing is averaged
in it; a clip that was not sampled is listed under `missing`, one without fMRI of its subject under
`unscanned`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from glfa_jax.errors import InputError
from glfa_jax.files import read_json, write_atomically
from glfa_jax.records import decode
from glfa_jax.starting import typed

FORMAT = 3
FILE = "scores.json"
FROM_NOTHING = "random weights"  # of pretraining without a folder to start from

Better = Literal["higher", "lower"]


def protocol_text(name: str, pretraining: str, world: str) -> str:
    """As tables and reports say it; the arguments are fields of `Protocol`."""
    simulated = f", simulated subjects ({world})" if world else ""
    return f"{name}, {pretraining} pretraining{simulated}"


@dataclass(frozen=True)
class Protocol:
    """Who was trained on and who decoded. `train_data`, `test_data`: identities of the stores,
    but for cleaning.

    world: of a simulated study, how its subjects differ; empty where brains were real.
    """

    name: str
    train_subjects: tuple[str, ...]
    test_subjects: tuple[str, ...]
    pretraining: str
    train_data: str
    test_data: str
    world: str = ""

    def __str__(self) -> str:
        return protocol_text(self.name, self.pretraining, self.world)


@dataclass(frozen=True)
class Sampling:
    sampler: str
    steps: int
    guidance_scale: float
    test_maps: str = "averaged"  # what all were before there was a choice

    def __str__(self) -> str:
        changed = "" if self.test_maps == "averaged" else f", test maps {self.test_maps}"
        return f"{self.sampler}, {self.steps} steps, guidance {self.guidance_scale:g}{changed}"


@dataclass(frozen=True)
class Metric:
    """One value a clip. `chance`: what guessing reaches, where that is known."""

    variant: str
    better: Better
    chance: float | None
    unit: str


@dataclass(frozen=True)
class Overall:
    """One value a run, such as a distance between distributions."""

    variant: str
    better: Better
    value: float


@dataclass(frozen=True, order=True)
class ClipKey:
    subject: str
    clip: int

    def __str__(self) -> str:
        return f"clip {self.clip} of subject {self.subject}"


@dataclass(frozen=True)
class ClipScores:
    """A value of every metric."""

    subject: str
    clip: int
    scores: Mapping[str, float]

    @property
    def key(self) -> ClipKey:
        return ClipKey(self.subject, self.clip)


@dataclass(frozen=True)
class Scores:
    """All of a run.

    training: every option that the training depended on besides seed, data and protocol, as JSON.
    judges: the evaluation models, each with a digest of its parameters.
    missing: clips that were wanted and not sampled.
    unscanned: test clips of the store that a subject has no fMRI of, so nobody wanted them.
    """

    run: str
    method: str
    seed: int
    protocol: Protocol
    training: Mapping[str, str]
    sampling: Sampling
    judges: Mapping[str, str]
    metrics: Mapping[str, Metric]
    clips: tuple[ClipScores, ...]
    missing: tuple[ClipKey, ...]
    unscanned: tuple[ClipKey, ...]
    overall: Mapping[str, Overall]

    def __post_init__(self) -> None:
        for key in ("run", "method", "metrics", "clips"):
            if not getattr(self, key):
                raise InputError(f"{key}: is empty")
        seen: set[ClipKey] = set()
        for key in (*(clip.key for clip in self.clips), *self.missing, *self.unscanned):
            if key in seen:
                raise InputError(
                    f"{key} is there twice; each is either scored, missing or unscanned, once"
                )
            seen.add(key)
        if both := sorted(set(self.metrics) & set(self.overall)):
            raise InputError(f"metric {both[0]!r}: is one value a clip or a run, not both")
        for clip in self.clips:
            if odd := sorted(set(self.metrics) ^ set(clip.scores)):
                what = "has no value of" if odd[0] in self.metrics else "is scored with the unknown"
                raise InputError(f"{clip.key} {what} metric {odd[0]!r}")

    @property
    def keys(self) -> tuple[ClipKey, ...]:
        """The scored clips, in the order of `clips`."""
        return tuple(clip.key for clip in self.clips)

    def values(self, metric: str) -> Float[np.ndarray, " clips"]:
        """A metric's value of every clip, in the order of `clips`."""
        return np.array([clip.scores[metric] for clip in self.clips], np.float64)

    def write(self, path: Path) -> None:
        """Writes the file, or `scores.json` in a folder, in one go.

        Raises InputError, before anything is written, for what could not be read back.
        """
        path = file_of(path)
        # Numbers of numpy become Python's.
        content = {"format": FORMAT} | asdict(self)
        text = json.dumps(content, indent=1, ensure_ascii=False, default=lambda x: x.item())
        _decoded(json.loads(text), path)
        write_atomically(path, text + "\n")

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Reads the file, or `scores.json` in a folder; InputError names the file and the fault."""
        path = file_of(path)
        if not path.exists():
            raise InputError(f"{path}: no such file; {typed('eval.score')} writes it")
        return _decoded(read_json(path), path)


def file_of(path: Path) -> Path:
    """The scores of a run folder, or the file itself."""
    path = Path(path)
    return path / FILE if path.is_dir() else path


def _decoded(content: Any, path: Path) -> Scores:
    try:
        if not isinstance(content, dict) or "format" not in content:
            raise InputError("must hold an object with a format")
        if (given := content.pop("format")) != FORMAT:
            if given in range(1, FORMAT):
                raise InputError(
                    f"format: {given}, of an earlier version, which kept less of how the run was "
                    "trained and scored; remove the file and score the run again"
                )
            raise InputError(f"format: {given!r} is unknown, this version reads {FORMAT}")
        return decode(Scores, content)
    except (InputError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from None
