"""What a prepared store says about itself, in the `zarr.json` of its group."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from glfa_jax.data import DataError, placed
from glfa_jax.data.layouts import SPLITS, Split
from glfa_jax.errors import InputError
from glfa_jax.files import read_object, reason
from glfa_jax.records import Text, decode
from glfa_jax.starting import typed

FORMAT = 2
CONFOUNDS = "_desc-confounds_"  # in the names of tables that only cleaning reads


class RunQuality(TypedDict, total=False):
    """What was measured of a run as it was scanned and, where it was cleaned, after that.

    drift: share of a pixel's variance in slow waves (a polynomial of order 4, less in runs of less
        than 200 s), beyond chance, the median.
    tsnr: mean over spread of a pixel, the median. displacement: of the head, mm, the mean.
    motion: correlation of the displacement with the change of the maps from volume to volume.
    censored: volumes.
    """

    drift: float
    drift_cleaned: float
    tsnr: float
    tsnr_cleaned: float
    displacement: float
    motion: float
    motion_cleaned: float
    censored: int


class StoredRun(RunQuality):
    """volumes: those that were z-scored; missing: trials whose window is not wholly in the run."""

    subject: Text
    name: Text
    split: Split
    volumes: int
    missing: int


class StoredFile(TypedDict):
    size: int
    sha256: Text


class Provenance(TypedDict, total=False):
    """files: by name. glfa_jax: version of the package."""

    root: Text
    settings: dict[Text, Any]
    files: dict[Text, StoredFile]
    glfa_jax: Text


class Seal(TypedDict):
    """What shows that nothing of a store has changed or is missing; it lies in the provenance.

    sizes: bytes of each file of an array, by its name. digest: of all attributes.
    """

    sizes: dict[Text, list[int]]
    digest: str


@dataclass(frozen=True)
class Attributes:
    """All that is known of a store without its arrays.

    repetition_time, lag_seconds: seconds. clips, captions: per split, one per sample.
    clip_seconds: duration of a clip, the median over all showings.
    layout, space: as in the settings.
    repeats: most repeats of a test clip that each subject has seen.
    runs: in the order they were read.
    notes: one sentence on each thing that is not as expected, or was left out.
    fingerprint: of the settings; identity: of settings and file contents.
    anatomy: names of the maps of their anatomy, of subjects who have some.
    kinds: of what `quality` holds besides the four kinds that every store has.
    """

    subjects: tuple[str, ...]
    repetition_time: float
    lag_seconds: float
    window: int
    clips: dict[Split, list[Text]]
    captions: dict[Split, list[Text]]
    clip_seconds: float
    layout: Text
    space: Text
    repeats: dict[str, int]
    runs: list[StoredRun]
    notes: list[Text]
    fingerprint: Text
    identity: Text
    provenance: Provenance
    anatomy: dict[str, list[Text]] = field(default_factory=dict)
    kinds: tuple[Text, ...] = ()

    @property
    def source(self) -> str:
        """The identity that the store would have without cleaning: of two stores that differ in
        nothing but cleaning it is one, so that what is decoded from them can be compared."""
        settings = self.provenance.get("settings", {})
        if "clean" not in settings:
            return self.identity
        settings = {key: value for key, value in settings.items() if key != "clean"}
        files = self.provenance.get("files", {})
        return identity_of(settings, {k: v for k, v in files.items() if CONFOUNDS not in k})

    def runs_of(self, subject: str) -> list[StoredRun]:
        return [run for run in self.runs if run["subject"] == subject]

    def check(self) -> None:
        """Raises InputError for what fits the annotations and still makes no store."""
        for name, fits in (
            ("subjects", self.subjects and all(s.isalnum() for s in self.subjects)),
            ("subjects", len(set(self.subjects)) == len(self.subjects)),
            ("repetition_time", self.repetition_time > 0),
            ("window", self.window > 0),
            ("clips", set(self.clips) == set(SPLITS)),
            ("captions", _lengths(self.captions) == _lengths(self.clips)),
            ("repeats", set(self.repeats) == set(self.subjects)),
            ("anatomy", set(self.anatomy) <= set(self.subjects) and all(self.anatomy.values())),
            ("runs", all(run["volumes"] >= 0 for run in self.runs)),
        ):
            if not fits:
                raise InputError(f"{name}: makes no sense, {json.dumps(getattr(self, name)):.80}")

    def write(self, folder: Path, *, sizes: Mapping[str, list[int]]) -> None:
        content = {"format": FORMAT, **vars(self)}
        if not self.anatomy:  # earlier versions read such a store, too
            del content["anatomy"]
        seal = {"sizes": sizes, "digest": _digest(content, sizes)}
        content["provenance"] = {**self.provenance, "seal": seal}
        write_group(folder, content)


def read_attributes(store: Path) -> tuple[Attributes, dict[str, list[int]] | None]:
    """With the seal's sizes; None for a store of before there were seals."""
    path = store / "zarr.json"
    if not path.exists():
        prepare = typed("glfa_jax.data.prepare")
        if store.exists():
            raise DataError(
                f"{store}: holds no prepared store; remove it and run {prepare}, or "
                "choose another data.store"
            )
        link = f" (links to {store.readlink()}, which is not there)" if store.is_symlink() else ""
        raise DataError(f"{placed(store)}: no prepared store{link}; run {prepare}")
    try:
        content = read_object(path)["attributes"]
        version = content["format"]
        if version == FORMAT:
            return _unsealed(content)
    except (InputError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{store}: not a prepared store of glfa_jax, or damaged ({reason(error)}); remove it "
            "and prepare it again"
        ) from None
    raise DataError(
        f"{store}: store format {version!s:.20}, this version reads {FORMAT}; remove it and "
        "prepare it again"
    )


def _unsealed(content: dict[str, Any]) -> tuple[Attributes, dict[str, list[int]] | None]:
    given = content["provenance"].pop("seal", None)
    seal = None if given is None else decode(Seal, given, "seal")
    digest = seal and _digest(content, seal["sizes"])
    del content["format"]
    attributes = decode(Attributes, content)
    attributes.check()
    if seal is None:
        return attributes, None
    if seal["digest"] != digest:
        raise InputError("its attributes are not those that were written")
    return attributes, seal["sizes"]


def _digest(content: Mapping[str, Any], sizes: Mapping[str, list[int]]) -> str:
    return hash_of([content, sizes])


def identity_of(settings: Mapping[str, Any], files: Mapping[str, StoredFile]) -> str:
    return hash_of({"settings": settings, "files": files})


def hash_of(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    (folder / "zarr.json").write_text(json.dumps(group, indent=1), encoding="utf-8")


def _lengths(lists: Mapping[Split, list[str]]) -> dict[Split, int]:
    return {split: len(entries) for split, entries in lists.items()}
