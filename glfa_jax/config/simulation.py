"""A simulated study: how large it is, and in which world its subjects live."""

from typing import ClassVar

from pydantic import Field, model_validator

from glfa_jax.config.base import Fraction, Positive, Rate, Section, Seed, Subject, once


class Simulation(Section):
    """A simulated study, written as a BIDS derivative when `data.root` holds none (DESIGN §4)."""

    later: ClassVar[frozenset[str]] = frozenset(
        {"patchwise", "anatomy", "tuning_noise", "reliability", "own_clips", "shared_share"}
        | {"drift", "motion", "spikes"}
    )

    subjects: Positive = 3
    train_runs: Positive = 6
    test_runs: Positive = 2
    clips_per_run: Positive = 40
    test_repeats: Positive = 2
    repetition_time: float = Field(default=1.0, gt=0, description="seconds")
    clip_seconds: float = Field(default=2.0, gt=0)
    gap_seconds: float = Field(default=2.0, ge=0, description="blank after each clip")
    frame_rate: Positive = 3
    size: Positive = Field(default=64, description="video height and width, pixels")
    displacement: Rate = Field(
        default=4.0, description="smooth, in mm on the flat map, root mean square"
    )
    patchwise: Fraction = Field(
        default=0.0,
        description="displacement with sharp borders: share of areas that swap places with a "
        "neighbour, and standard deviation of the log of the size of areas",
    )
    anatomy: Fraction | None = Field(
        default=None,
        description="correlation of the smooth displacement with a function of the subject's maps "
        "of curvature and myelin, which are written beside the scans; 0: they say nothing; none "
        "are written if left out",
    )
    mixing: Fraction = Field(
        default=0.5, description="share of distant signal at the centres of patches"
    )
    tuning_noise: Fraction = Field(
        default=0.0,
        description="share of the tuned answer's variance that stems from preferences which no "
        "other subject has, where nothing is mixed in",
    )
    gain: Rate = Field(
        default=0.2, description="standard deviation of the log of gain and of noise"
    )
    noise: Rate = Field(default=1.5, description="noise over signal standard deviation")
    reliability: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="correlation at a vertex of two repeats of a run in the same order, mean over "
        "the region; sets the noise of each subject, in place of `noise`",
    )
    drift: Rate = Field(
        default=0.0,
        description="drift slower than 0.01 Hz, standard deviation over that of the signal; with "
        "any of drift, motion and spikes, tables of confounds are written beside the scans",
    )
    motion: Rate = Field(
        default=0.0,
        description="what follows the head's position, standard deviation over that of the signal",
    )
    spikes: Fraction = Field(
        default=0.0, description="share of volumes that a jerk of the head spoils"
    )
    own_clips: tuple[Subject, ...] = Field(
        default=(), description="subjects whose training clips no other subject sees"
    )
    shared_share: Fraction = Field(
        default=0.0, description="share of their training clips that they see like everybody else"
    )
    seed: Seed = 0

    @property
    def names(self) -> tuple[str, ...]:
        """BIDS labels of the subjects: 01, 02, ..."""
        return tuple(f"{number:02d}" for number in range(1, self.subjects + 1))

    @property
    def world(self) -> str:
        """How subjects differ, in a few words, for results to say."""
        kinds = [
            "smooth" if self.displacement else "",
            f"patchwise {self.patchwise:g}" if self.patchwise else "",
        ]
        parts = [
            " and ".join(filter(None, kinds)) or "not displaced",
            f"anatomy {self.anatomy:g}" if self.anatomy is not None else "",
            f"tuning noise {self.tuning_noise:g}" if self.tuning_noise else "",
            f"reliability {self.reliability:g}" if self.reliability else "",
            f"drift {self.drift:g}" if self.drift else "",
            f"motion {self.motion:g}" if self.motion else "",
            f"spikes {self.spikes:g}" if self.spikes else "",
            f"own clips of {' '.join(self.own_clips)}" if self.own_clips else "",
            f"shared share {self.shared_share:g}" if self.own_clips and self.shared_share else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def equal_brains(self) -> "Simulation":
        """The same study of subjects that differ in gain and noise alone."""
        none = {"displacement": 0.0, "patchwise": 0.0, "mixing": 0.0, "tuning_noise": 0.0}
        return self.model_copy(update=none)

    @model_validator(mode="after")
    def _known_own_clips(self) -> "Simulation":
        once("own_clips", self.own_clips)
        if unknown := [name for name in self.own_clips if name not in self.names]:
            raise ValueError(f"own_clips: {unknown[0]} is none of {', '.join(self.names)}")
        return self
