"""What is taken out of every run's time series before it is z-scored."""

from typing import Literal

from pydantic import Field, model_validator

from glfa_jax.config.base import Count, Fraction, Positive, Section

Model = Literal["basic", "power2", "derivatives", "full"]
Compcor = Literal[
    "anat_combined",
    "anat_separated",
    "temporal",
    "temporal_anat_combined",
    "temporal_anat_separated",
]


class Confounds(Section):
    """Which columns of fMRIPrep's tables of confounds are regressed out.

    A strategy or parts as nilearn names them (`load_confounds_strategy`, `load_confounds`), and
    columns of one's own.
    """

    strategy: Literal["simple", "scrubbing", "compcor", "ica_aroma"] | None = Field(
        default=None, description="a strategy of nilearn's load_confounds_strategy"
    )
    parts: tuple[
        Literal["motion", "high_pass", "wm_csf", "global_signal", "compcor", "ica_aroma", "scrub"],
        ...,
    ] = Field(default=(), description="parts of nilearn's load_confounds, instead of a strategy")
    columns: tuple[str, ...] = Field(
        default=(), description="columns by name or pattern, such as rot_? or a_comp_cor_0*"
    )
    motion: Model | None = Field(default=None, description="nilearn's own choice if left out")
    wm_csf: Model | None = Field(default=None, description="nilearn's own choice if left out")
    global_signal: Model | None = Field(
        default=None, description="of a strategy: regressed out only where this is given"
    )
    compcor: Compcor | None = Field(default=None, description="nilearn's own choice if left out")
    n_compcor: Positive | None = Field(default=None, description="components; all if left out")

    @model_validator(mode="after")
    def _something(self) -> "Confounds":
        if self.strategy is not None and self.parts:
            raise ValueError("parts: must be left out with a strategy, which names its own")
        if not (self.strategy or self.parts or self.columns):
            raise ValueError("strategy: must be given, or else parts or columns")
        if "compcor" in self.parts and "high_pass" not in self.parts:
            raise ValueError(
                "parts: compcor needs high_pass beside it, since fMRIPrep computes compcor of "
                "filtered series"
            )
        return self

    @property
    def options(self) -> dict[str, str | int]:
        """What nilearn is told besides the strategy or parts."""
        names = ("motion", "wm_csf", "global_signal", "compcor", "n_compcor")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


class Censor(Section):
    """Which volumes are replaced by what lies around them, because the head moved."""

    framewise_displacement: float | None = Field(
        default=None, gt=0, description="volumes of more than so many mm"
    )
    std_dvars: float | None = Field(
        default=None, gt=0, description="volumes of more than this standardised DVARS"
    )
    shortest: Count = Field(
        default=0,
        description="stretches of fewer volumes between censored ones, or at an end, are censored "
        "as well",
    )

    @model_validator(mode="after")
    def _something(self) -> "Censor":
        if self.framewise_displacement is None and self.std_dvars is None:
            raise ValueError("framewise_displacement: must be given, or else std_dvars")
        return self


class Cleaning(Section):
    """What is taken out of each run by itself; the order is that of the options."""

    smooth_mm: float | None = Field(
        default=None, gt=0, description="Gaussian smoothing along the surface, full width at half"
    )
    despike: float | None = Field(
        default=None,
        gt=0,
        description="values of a pixel farther from its drift than so many robust standard "
        "deviations are drawn back to that limit",
    )
    polynomial: Positive | None = Field(default=None, description="order of the drift taken out")
    cosine_seconds: float | None = Field(
        default=None, gt=0, description="drift of cosines of this period and slower, as SPM does"
    )
    high_pass_hz: float | None = Field(default=None, gt=0, description="Butterworth, order 5")
    low_pass_hz: float | None = Field(default=None, gt=0, description="Butterworth, order 5")
    confounds: Confounds | None = None
    censor: Censor | None = None
    most_censored: Fraction = Field(
        default=0.2,
        description="training clips of which a larger share of the window is censored are left out",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Cleaning":
        low, high = self.high_pass_hz, self.low_pass_hz
        if low is not None and high is not None and low >= high:
            raise ValueError(f"high_pass_hz: {low:g} must be below low_pass_hz, {high:g}")
        if low is not None and self.cosine_seconds is not None:
            raise ValueError(
                "cosine_seconds: must be left out with high_pass_hz, both take slow waves out"
            )
        return self

    @property
    def in_time(self) -> bool:
        """Whether time series change, besides what smoothing does."""
        return self != Cleaning(smooth_mm=self.smooth_mm, most_censored=self.most_censored)

    @property
    def on(self) -> bool:
        return self.in_time or self.smooth_mm is not None

    @property
    def reads_confounds(self) -> bool:
        return self.confounds is not None or self.censor is not None

    @property
    def words(self) -> str:
        """All that is done, for people."""
        done = {
            "smoothed by {:g} mm": self.smooth_mm,
            "spikes beyond {:g} standard deviations drawn back": self.despike,
            "polynomial of order {}": self.polynomial,
            "cosines of {:g} s and slower": self.cosine_seconds,
            "high-pass {:g} Hz": self.high_pass_hz,
            "low-pass {:g} Hz": self.low_pass_hz,
            "confounds {}": self.confounds and _confounds(self.confounds),
            "censored {}": self.censor and _censor(self.censor),
        }
        parts = (text.format(value) for text, value in done.items() if value is not None)
        return ", ".join(parts) or "none"


def _confounds(given: Confounds) -> str:
    options = (f"{name} {value}" for name, value in given.options.items())
    named = [given.strategy] if given.strategy else list(given.parts)
    return " ".join([*named, *options, *given.columns])


def _censor(given: Censor) -> str:
    limits: list[str] = []
    if given.framewise_displacement is not None:
        limits.append(f"beyond {given.framewise_displacement:g} mm")
    if given.std_dvars is not None:
        limits.append(f"beyond DVARS {given.std_dvars:g}")
    return " or ".join(limits)
