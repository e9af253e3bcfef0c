"""Where scans come from and how they become samples; who is trained on and who is decoded."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from glfa_jax.config.base import Count, Positive, Rate, Section, Subject, once
from glfa_jax.config.cleaning import Cleaning
from glfa_jax.config.films import Films, Split
from glfa_jax.config.simulation import Simulation

# The visual cortex in the areas of the HCP multi-modal parcellation (SPEC §5.1).
VISUAL_AREAS = (
    *("V1", "V2", "V3", "V3A", "V3B", "V3CD", "V4", "LO1", "LO2", "LO3", "PIT", "V4t", "V6", "V6A"),
    *("V7", "V8", "PH", "FFC", "IP0", "MT", "MST", "FST", "VVC", "VMV1", "VMV2", "VMV3"),
    *("PHA1", "PHA2", "PHA3", "TE2p", "IPS1"),
)


class Surfaces(Section):
    """The mesh that the scans lie on, as GIFTI files, left hemisphere first."""

    flat: tuple[Path, Path] = Field(description="flat surfaces")
    pial: tuple[Path, Path] | None = Field(
        default=None, description="tells stretched triangles; volumes are sampled up to it"
    )
    white: tuple[Path, Path] | None = Field(default=None, description="volumes are sampled from it")


class Region(Section):
    """Which part of the cortex is drawn: named areas of a parcellation, or a mask image."""

    labels: tuple[Path, ...] | None = Field(
        default=None, description="two label GIFTI, left first, or one label CIFTI"
    )
    areas: tuple[str, ...] = Field(default=VISUAL_AREAS, min_length=1)
    mask: Path | None = Field(
        default=None, description="image of the flat map, npz or npy: 1 region, -1 other cortex"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Region":
        if (self.labels is None) == (self.mask is None):
            raise ValueError("region: needs either labels or mask")
        if self.labels is not None and len(self.labels) not in (1, 2):
            raise ValueError(f"labels: must be one or two files, got {len(self.labels)}")
        return self


class RunNumbers(Section):
    """The runs of one subject."""

    train: tuple[Positive, ...] = Field(min_length=1)
    test: tuple[Positive, ...] = Field(min_length=1)


class Data(Section):
    """Where scans come from and how they become samples."""

    former: ClassVar[dict[str, str]] = {"raster": "map_size"}

    layout: str = Field(default="bids", description="one of those in glfa_jax/data/layouts")
    root: Path
    store: Path
    simulation: Simulation | None = None
    subjects: tuple[Subject, ...] = Field(min_length=1, description="every subject to prepare")
    task: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default="clips",
        description="task in the names of BIDS files; several, or shell patterns, may be given",
    )
    space: str = Field(
        default="fsaverage5",
        description="space in the names of BIDS files: a surface, fsLR, or a volume such as "
        "MNI152NLin2009cAsym, which is sampled to the surfaces",
    )
    surfaces: Surfaces | None = Field(default=None, description="fsaverage5 needs none")
    region: Region | None = Field(
        default=None, description="posterior cortex of fsaverage5 when left out"
    )
    captions: Path | None = Field(
        default=None,
        description="captions.tsv (stim_file, caption) for layouts without captions; wen2018: "
        "also a list such as GT_train_caption.pt",
    )
    runs: dict[Subject, RunNumbers] | None = Field(
        default=None,
        description="layout fudan: runs of each subject; of the WebVid part if left out",
    )
    films: Films | None = Field(
        default=None, description="layout bids: runs show long films, which are cut into clips"
    )
    split: Split | None = Field(
        default=None,
        description="layout bids: what is for test; as events.tsv says in trial_type if left out",
    )
    clip_seconds: Positive = Field(
        default=4, description="layout hcp7t: seconds of film in each clip"
    )
    map_size: Positive = Field(default=256, description="height and width of the flat map, pixels")
    lag_seconds: Rate = Field(default=4.0, description="haemodynamic lag")
    window: Positive = Field(default=5, description="volumes of fMRI per clip")
    frames: Positive = Field(default=6, description="video frames per clip")
    resolution: tuple[Positive, Positive] = Field(
        default=(256, 256), description="height, width in pixels"
    )
    repetition_time: Literal["agreeing", "sidecar", "header"] = Field(
        default="agreeing",
        description="layout bids: which to trust where a scan's header and its sidecar differ; "
        "agreeing: they must not, but for a header's usual default or another unit",
    )
    drop_volumes: tuple[Count, Count] = Field(
        default=(0, 0), description="layout bids: volumes left out at the begin and end of a run"
    )
    clean: Cleaning | None = Field(
        default=None,
        description="what is taken out of each run before it is z-scored; as the layout's authors "
        "do if left out (wen2018: polynomial 4, others: nothing), {} for nothing",
    )
    latents: bool = Field(default=False, description="keep the VAE's latents of every clip")
    on_error: Literal["stop", "skip"] = Field(
        default="stop", description="skip: note what cannot be used and prepare the rest"
    )
    workers: Positive | None = Field(
        default=None, description="processes that prepare; as many as processors if left out"
    )

    @property
    def world(self) -> str:
        """How the subjects of a simulated study differ; empty where brains are real."""
        return "" if self.simulation is None else self.simulation.world

    @model_validator(mode="after")
    def _distinct_subjects(self) -> "Data":
        once("subjects", self.subjects)
        return self

    @model_validator(mode="after")
    def _films_to_divide(self) -> "Data":
        if self.split is not None and self.split.by == "time" and self.films is None:
            raise ValueError("split: by time divides long films, which need data.films")
        if self.films is not None and self.films.shown and self.split is None:
            raise ValueError("split: must say what is for test, since films.shown does not")
        return self


class Protocol(Section):
    """Who is trained on, who is decoded, and whose fMRI pretraining may see.

    `strict`: pretraining sees the training split of the training subjects only. `published`: of all
    subjects, the test subjects included, as published cross-subject numbers do (SPEC §3). Test
    splits are never seen by any training under either.
    """

    train_subjects: tuple[Subject, ...] = Field(min_length=1)
    test_subjects: tuple[Subject, ...] = Field(min_length=1)
    pretraining: Literal["strict", "published"] = "strict"
    name: Literal["within-subject", "cross-subject", "cross-dataset"] | None = Field(
        default=None, description="subjects and stores of another kind are rejected"
    )
    test_store: Path | None = Field(
        default=None,
        description="prepared store of another data set, or of subjects scanned later, which is "
        "decoded instead; results go to a folder of its name in the run's",
    )

    def kind(self, subjects: Iterable[str] | None = None) -> str:
        """What the subjects and stores amount to: of all test subjects or of some."""
        if self.test_store is not None:
            return "cross-dataset"
        decoded = self.test_subjects if subjects is None else subjects
        known = [subject in self.train_subjects for subject in decoded]
        return "within-subject" if all(known) else "mixed" if any(known) else "cross-subject"

    @model_validator(mode="after")
    def _distinct_subjects(self) -> "Protocol":
        once("train_subjects", self.train_subjects)
        once("test_subjects", self.test_subjects)
        return self

    @model_validator(mode="after")
    def _as_named(self) -> "Protocol":
        if self.name not in (None, self.kind()):
            raise ValueError(
                f"name: {self.name}, but training on {list(self.train_subjects)} and decoding "
                f"{list(self.test_subjects)} of {self.test_store or 'the same store'} is "
                f"{self.kind()}"
            )
        return self
