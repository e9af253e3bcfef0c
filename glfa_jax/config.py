"""The whole configuration schema: every option, its default, its unit.

A YAML file gives what differs from the defaults; `--set section.key=value` overrides it. Unknown
keys, wrong types and duplicate keys are refused before anything else happens.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from glfa_jax import strict_yaml
from glfa_jax.errors import InputError
from glfa_jax.files import one_line, read_text

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
PairedFraction = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="share of a batch's rows that show one clip as seen by all subjects; the other "
        "rows hold a different clip of each subject, so that a batch shows more of the stimuli",
    ),
]


def _fits_float32(value: float) -> float:
    if abs(value) > (2 - 2**-23) * 2.0**127:
        raise PydanticCustomError("float32", "Input should be finite in 32 bits, up to 3.4e38")
    return value


def present_names(metrics: Any) -> Any:
    """Groups of metrics by the names that they have now."""
    if isinstance(metrics, list | tuple):
        return ["pixel" if name == "pictures" else name for name in metrics]
    return metrics


Guidance = Annotated[float, AfterValidator(_fits_float32)]
MetricNames = Annotated[tuple[str, ...], BeforeValidator(present_names)]
Subject = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]


class ConfigError(InputError):
    """The configuration cannot be used; the message names key, value and what is allowed."""


class Section(BaseModel):
    """Messages of validators start with the key they are about, as seen from their section."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Names that options had in earlier versions, in files that are still read.
    former: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _under_former_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for old, new in cls.former.items():
            if old in given:
                if new in given:
                    raise ValueError(f"{old}: is called {new} now, and both are given")
                given = {new if key == old else key: value for key, value in given.items()}
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise PydanticCustomError("flag", "Input should be a number")
        return value


def _once(key: str, names: tuple) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{key}: each may be named once, got {list(names)}")


class Simulation(Section):
    """A simulated study, written as a BIDS derivative when `data.root` holds none (DESIGN §4)."""

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
    displacement: Rate = Field(default=4.0, description="mm on the flat map, root mean square")
    mixing: Fraction = Field(
        default=0.5, description="share of distant signal at the centres of patches"
    )
    gain: Rate = Field(
        default=0.2, description="standard deviation of the log of gain and of noise"
    )
    noise: Rate = Field(default=1.5, description="noise over signal standard deviation")
    seed: Seed = 0


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
        default=None, description="picture of the flat map, npz or npy: 1 region, -1 other cortex"
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

    former = {"raster": "map_size"}

    layout: str = Field(default="bids", description="one of those in glfa_jax/data/layouts")
    root: Path
    store: Path
    simulation: Simulation | None = None
    subjects: tuple[Subject, ...] = Field(min_length=1, description="every subject to prepare")
    task: str = Field(default="clips", description="task in the names of BIDS files")
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
        default=None, description="captions.tsv (stim_file, caption) for layouts without captions"
    )
    runs: dict[Subject, RunNumbers] | None = Field(
        default=None,
        description="layout fudan: runs of each subject; of the WebVid part if left out",
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
    latents: bool = Field(default=False, description="keep the VAE's latents of every clip")
    on_error: Literal["stop", "skip"] = Field(
        default="stop", description="skip: note what cannot be used and prepare the rest"
    )
    workers: Positive | None = Field(
        default=None, description="processes that prepare; as many as processors if left out"
    )

    @model_validator(mode="after")
    def _distinct_subjects(self) -> "Data":
        _once("subjects", self.subjects)
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
        default=None, description="refuses subjects and stores that are something else"
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
        _once("train_subjects", self.train_subjects)
        _once("test_subjects", self.test_subjects)
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


class Encoder(Section):
    """fMRI-PTE autoencoder (SPEC §2.1)."""

    patch_size: Positive = 16
    width: Positive = 1024
    depth: Positive = 24
    decoder_depth: Positive = 24
    num_heads: Positive = 16
    mlp_ratio: float = Field(default=4.0, gt=0)
    latent: Positive = 2048

    @model_validator(mode="after")
    def _width_divides(self) -> "Encoder":
        for divisor, what in ((4, "4, for the 2-D positions"), (self.num_heads, "num_heads")):
            if self.width % divisor:
                got = "" if divisor == 4 else f" {divisor}"
                raise ValueError(f"width: {self.width} is no multiple of {what}{got}")
        return self


class Alignment(Section):
    """What brings every subject's maps into a common space; `glfa` as of SPEC §2.2.

    `glfa` with neither part on is `identity`, which is fMRI-PTE-V.
    """

    method: str = Field(
        default="glfa",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="glfa, identity or another file of glfa_jax/alignments",
    )
    options: dict[str, bool | int | float | str] = Field(
        default={}, description="of a method other than glfa"
    )
    global_part: bool = Field(default=True, description="of glfa, as are the next two")
    local_part: bool = True
    kernel_size: Positive = 13
    per_subject: bool = Field(
        default=False,
        description="a layer for every training subject; others then need train.adapt",
    )

    @model_validator(mode="after")
    def _odd(self) -> "Alignment":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: must be odd, got {self.kernel_size}")
        if self.per_subject and self.method == "identity":
            raise ValueError("per_subject: must be false with method identity")
        if self.per_subject and not self.on:
            raise ValueError("per_subject: must be false when global_part and local_part are")
        return self

    @property
    def on(self) -> bool:
        """Whether maps are changed at all."""
        if self.method == "glfa":
            return self.global_part or self.local_part
        return self.method != "identity"


class Conditioning(Section):
    """Space-time block, token mapper, contrastive head (SPEC §2.3)."""

    hidden_tokens: Positive = 321
    num_heads: Positive = 16
    head: Literal["conv", "linear"] = "conv"


class Lora(Section):
    rank: Positive = 8
    scale: float = 1.0


class Stage(Section):
    """What every training stage has."""

    steps: Positive
    batch_size: Positive = Field(description="fMRI windows over all subjects")
    learning_rate: float = Field(gt=0)
    weight_decay: Rate = 0.01
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float = Field(default=1.0, gt=0)
    warmup_steps: Count = 0
    decay: Literal["constant", "cosine"] = Field(
        default="constant", description="cosine ends at zero"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    log_every: Positive = 10
    save_every: Positive = 500
    keep: Positive = Field(default=2, description="checkpoints kept")
    keep_best: Count = Field(default=0, description="those of lowest loss kept besides")
    accumulate: Positive = Field(
        default=1,
        description="parts of a batch computed one after the other; contrasts are within a part",
    )


class Pretrain(Stage):
    steps: Positive = 2000
    batch_size: Positive = Field(default=64, description="fMRI volumes")
    learning_rate: float = Field(default=1e-4, gt=0)


class Contrast(Stage):
    steps: Positive = 12000
    batch_size: Positive = 32
    learning_rate: float = Field(default=2e-5, gt=0)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.6
    logit_scale_rate: Rate = Field(
        default=10.0, description="learning-rate multiplier of the logit scale"
    )
    token_scale: Rate = Field(
        default=0.0,
        description="of the distance between condition and caption tokens; not part of the paper",
    )
    crop_probability: Fraction = 0.5
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    paired_fraction: PairedFraction = 1.0


class Cotrain(Stage):
    """L_diffusion + glfa_scale * (regularisation_scale * L_reg + alignment_scale * L_align).

    Two lines make either preset:

        official code, the defaults     glfa_scale: 1.0   alignment_scale: 0.1
        the paper's supplement          glfa_scale: 0.5   alignment_scale: 1.0

    The supplement says lambda = 1/2 for L_GLFA; that its parts weigh the same within it is our
    reading, as it says nothing of them.
    """

    steps: Positive = 18000
    batch_size: Positive = 16
    learning_rate: float = Field(default=3e-5, gt=0)
    trainable: str = Field(
        default="attention",
        description="a set of the generator's parameters; unet3d: attention (attn1, attn2 and "
        "temp_conv), or lora on them",
    )
    lora: Lora = Lora()
    glfa_scale: Rate = Field(
        default=1.0,
        description="of both alignment losses: 1 in the official code, 1/2 (lambda of Eq. 7) in "
        "the paper's supplement; 0: without consistency loss",
    )
    regularisation_scale: Rate = Field(default=1.0, description="of MSE(aligned, original)")
    alignment_scale: Rate = Field(
        default=0.1, description="of MSE between subjects: 0.1 in the official code, else 1"
    )
    paired_fraction: PairedFraction = 1.0
    offset_noise: Rate = 0.0
    zero_terminal_snr: bool = False

    @model_validator(mode="after")
    def _one_noise(self) -> "Cotrain":
        if self.offset_noise and self.zero_terminal_snr:
            raise ValueError(
                f"offset_noise: must be 0 when zero_terminal_snr is true, got {self.offset_noise}"
            )
        return self


class Adapt(Stage):
    """Fitting the alignment to a new subject (train.adapt); not part of the paper.

    Both parts of the loss weigh the same. On simulated data less regularisation brings the maps
    nearer still to the others', but flattens them, as averages are flatter than what is averaged,
    and the encoder, which stays as it is, then takes them for less alike.
    """

    steps: Positive = 300
    batch_size: Positive = Field(default=16, description="fMRI windows of the new subject")
    learning_rate: float = Field(default=1e-2, gt=0)
    regularisation_scale: Rate = Field(default=1.0, description="of MSE(aligned, original)")
    alignment_scale: Rate = Field(
        default=1.0, description="of MSE to the mean of the training subjects' aligned maps"
    )


class Lea(Section):
    """Ridge regression in place of stages 1 and 2 (SPEC §6.3)."""

    alpha: Rate = Field(default=500.0, description="weight of the squared norm of the weights")
    batch_size: Positive = Field(default=64, description="fMRI windows encoded at once")


class Evaluation(Section):
    """Sampling and scoring (SPEC §4, §6)."""

    sampler: str = Field(default="dpm++", description="of the generator; unet3d: dpm++ or ddim")
    sampling_steps: Positive = 25
    guidance_scale: Guidance = 9.0
    batch_size: Positive = 16
    clips: Positive | None = Field(
        default=None, description="test clips to decode; all when left out"
    )
    ways: tuple[Annotated[int, Field(ge=2)], ...] = Field(default=(2, 50), min_length=1)
    metrics: MetricNames = Field(
        default=("pixel", "colour", "motion", "embeddings", "features"),
        description="groups or single metrics of glfa_jax/metrics, besides n-way accuracy; motion "
        "takes most of the time, 0.3 s for a clip of 6 frames of 256x256",
    )
    consistency_gate: float = Field(
        default=0.6,
        description="CLIP-pcc, gated, is 0 for clips of no greater VIFI similarity; 0.6 is "
        "published, for ViFi-CLIP",
    )
    adapted_minutes: float | None = Field(
        default=None,
        gt=0,
        description="test subjects that were not trained on use the layer that train.adapt fitted "
        "to so many minutes; left out: none is fitted to them, zero-shot",
    )


class Sweep(Section):
    """Settings of sampling to compare; every combination is sampled and scored. What is left out is
    as in `evaluation`, and `seed`."""

    guidance_scales: tuple[Guidance, ...] | None = Field(default=None, min_length=1)
    sampling_steps: tuple[Positive, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1)
    checkpoints: tuple[Positive, ...] | None = Field(
        default=None,
        min_length=1,
        description="steps of stage 2 whose checkpoints are still kept; the finished model if left "
        "out",
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Sweep":
        for key in type(self).model_fields:
            _once(key, getattr(self, key) or ())
        return self


class MeshSize(Section):
    """How many devices share the work; the product is the number of devices."""

    data: Positive | None = Field(default=None, description="all that are left when left out")
    fsdp: Positive = Field(default=1, description="devices that large parameters are spread over")
    frame: Positive = Field(default=1, description="devices that the frames of a clip share")


class Processes(Section):
    """One process; or several, that find each other (TPU pods, Slurm) or are told here."""

    found: Literal["one", "auto", "given"] = "one"
    coordinator: str | None = Field(default=None, pattern=r"^[^:]+:[0-9]+$")
    count: Positive | None = None
    index: Count | None = None

    @model_validator(mode="after")
    def _all_given(self) -> "Processes":
        given = [self.coordinator, self.count, self.index]
        if (self.found == "given") != all(value is not None for value in given) or (
            self.found != "given" and any(value is not None for value in given)
        ):
            raise ValueError("found: given needs coordinator, count and index, others none of them")
        if self.count is not None and self.index is not None and self.index >= self.count:
            raise ValueError(f"index: must be below count, {self.count}, got {self.index}")
        return self


class Hardware(Section):
    """What it runs on; nothing here changes what is computed but the last digits."""

    mesh: MeshSize = MeshSize()
    processes: Processes = Processes()
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="of activations, in training and in sampling; trained parameters stay float32",
    )
    frozen_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of parameters that are not trained"
    )
    remat: bool = Field(
        default=False,
        description="compute layers anew in the backward pass: less memory, more time",
    )
    sharding: dict[str, tuple[Literal["fsdp"] | None, ...]] = Field(
        default={}, description="parameters by pattern: their axes; else the largest that divides"
    )
    shard_from_bytes: Count = Field(
        default=4 * 2**20, description="smaller parameters lie on every device"
    )


class Config(Section):
    """Everything about a run: data, protocol, model, stages, evaluation, hardware.

    `load` reads one from YAML, `of` makes one of its options; every option is a field of a section.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    seed: Seed = 0
    run_dir: Path
    results_dir: Path | None = Field(
        default=None,
        description="where layers fitted to new subjects, samples, scores and reports go, if not "
        "to run_dir: a finished run may be read-only",
    )
    foundation: Path = Field(description="folder of pretrained generator, CLIP and classifiers")
    generator: str = Field(
        default="unet3d",
        description="what lies in its text-to-video; unet3d: ModelScope, zeroscope",
    )
    method: Literal["glfa", "lea"] = Field(
        default="glfa", description="stages 1 and 2, or a regression with nothing else trained"
    )
    data: Data
    protocol: Protocol
    encoder: Encoder = Encoder()
    alignment: Alignment = Alignment()
    conditioning: Conditioning = Conditioning()
    pretrain: Pretrain = Pretrain()
    contrast: Contrast = Contrast()
    cotrain: Cotrain = Cotrain()
    without: tuple[Literal["pretrain", "contrast"], ...] = Field(
        default=(),
        description="stages left out: the encoder starts at random (pretrain), stage 2 from the "
        "autoencoder's encoder with fresh conditioning (contrast)",
    )
    adapt: Adapt = Adapt()
    lea: Lea = Lea()
    evaluation: Evaluation = Evaluation()
    sweep: Sweep = Sweep()
    hardware: Hardware = Hardware()

    @property
    def aligned(self) -> bool:
        """Whether there is an alignment in front of the decoder."""
        return self.method == "glfa" and self.alignment.on

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        _once("without", self.without)
        if self.method == "lea" and self.without:
            raise ValueError(
                f"without: {list(self.without)}, must be left out with method lea, which needs the "
                "pretrained encoder and has no stage 1"
            )
        if self.method == "lea" and self.sweep.checkpoints:
            raise ValueError("sweep.checkpoints: must be left out with method lea, which has none")
        self._validate_layers_of_checkpoints()
        roles = ["train_subjects"]
        if self.protocol.test_store is None:
            roles.append("test_subjects")
        self._validate_layers_of_subjects()
        for role in roles:
            strangers = set(getattr(self.protocol, role)) - set(self.data.subjects)
            if strangers:
                raise ValueError(
                    f"protocol.{role}: {sorted(strangers)} not among data.subjects "
                    f"{list(self.data.subjects)}"
                )
        if self.data.map_size % self.encoder.patch_size:
            raise ValueError(
                f"data.map_size: {self.data.map_size} is no multiple of encoder.patch_size "
                f"{self.encoder.patch_size}"
            )
        for name in ("contrast", "cotrain"):
            size, fraction = getattr(self, name).batch_size, getattr(self, name).paired_fraction
            rows, left = divmod(size, len(self.protocol.train_subjects))
            if left:
                raise ValueError(
                    f"{name}.batch_size: {size} is no multiple of the number of "
                    f"protocol.train_subjects, {len(self.protocol.train_subjects)}"
                )
            if 0 < fraction < 1 and round(fraction * rows) in (0, rows):
                share = "all" if round(fraction * rows) else "none"
                raise ValueError(
                    f"{name}.paired_fraction: {fraction} of a batch of {rows} rows is {share} of "
                    f"them; must be {float(share == 'all')} to mean that, or the batch larger"
                )
        if self.data.frames % self.hardware.mesh.frame:
            raise ValueError(
                f"hardware.mesh.frame: {self.hardware.mesh.frame} is no divisor of data.frames "
                f"{self.data.frames}"
            )
        if self.encoder.width % self.conditioning.num_heads:
            raise ValueError(
                f"conditioning.num_heads: {self.conditioning.num_heads} is no divisor of "
                f"encoder.width {self.encoder.width}"
            )
        return self

    def _validate_layers_of_subjects(self) -> None:
        """Layers belong to subjects by name, and a name means another person in another store."""
        minutes, protocol = self.evaluation.adapted_minutes, self.protocol
        if protocol.test_store is not None:
            twice = [name for name in protocol.test_subjects if name in protocol.train_subjects]
            if twice and (self.alignment.per_subject or minutes is not None):
                raise ValueError(
                    f"protocol.test_subjects: {twice} of {protocol.test_store} have names of "
                    "protocol.train_subjects, whose layers would be taken for theirs "
                    "(alignment.per_subject, evaluation.adapted_minutes); prepare that store with "
                    "other names"
                )
        elif minutes is not None and protocol.kind() == "within-subject":
            raise ValueError(
                f"evaluation.adapted_minutes: {minutes:g}, but all of protocol.test_subjects "
                f"{list(protocol.test_subjects)} are trained on, so that no layer would be fitted; "
                "must be left out"
            )

    def _validate_layers_of_checkpoints(self) -> None:
        """A layer is fitted to the finished model, whose weights no other checkpoint has."""
        fitted = self.evaluation.adapted_minutes is not None
        asked, finished = self.sweep.checkpoints, self.cotrain.steps
        if fitted and asked and asked != (finished,):
            raise ValueError(
                f"sweep.checkpoints: {list(asked)}, but the layers of evaluation.adapted_minutes "
                f"were fitted to the finished model; must be left out or [{finished}]"
            )


class Study(Section):
    """Methods against each other: every method is trained and scored with every seed."""

    seeds: tuple[Seed, ...] = Field(min_length=1)
    methods: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="name to section.key=value, what it changes in `config`"
    )
    reference: str = Field(description="the method that the others are compared with")
    metrics: tuple[str, ...] = Field(
        (), description="by which methods are compared, of those measured; none names all"
    )
    config: Config

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        _once("seeds", self.seeds)
        if self.reference not in self.methods:
            raise ValueError(
                f"reference: {self.reference} is none of methods, {', '.join(self.methods)}"
            )
        folders: dict[str, str] = {}
        for method in self.methods:
            if "=" in method or method.startswith("-") or not method.isprintable():
                raise ValueError(f"methods: {method!r}, must be one line without = or leading -")
            self._validate_method(method)
            folder = self.folder(method)
            alike = folder.lower()  # one folder on some disks
            if alike in folders:
                raise ValueError(
                    f"methods: {folders[alike]} and {method} would share the folder {folder}"
                )
            folders[alike] = method
        return self

    def _validate_method(self, method: str) -> None:
        """What would fail only after hours of training."""
        if not self.folder(method):
            raise ValueError(
                f"methods: {method!r}, must hold a letter from A to Z or a digit, for its folder"
            )
        for override in self.methods[method]:
            if (key := override.partition("=")[0]) in ("seed", "run_dir", "results_dir"):
                raise ValueError(
                    f"methods: {method}, must not set {key}, which the study gives every run"
                )
        own = self.cell(method, self.seeds[0])
        minutes, protocol = own.evaluation.adapted_minutes, own.protocol
        if minutes is not None and not own.aligned:
            raise ValueError(
                f"methods: {method}, has no alignment layer (method, alignment), so that none can "
                "be fitted; evaluation.adapted_minutes must be left out"
            )
        new = [name for name in protocol.test_subjects if name not in protocol.train_subjects]
        if own.aligned and own.alignment.per_subject and new and minutes is None:
            raise ValueError(
                f"methods: {method}, has no layer (alignment.per_subject) for {', '.join(new)}, "
                "who are decoded but not trained on; needs evaluation.adapted_minutes"
            )

    @staticmethod
    def folder(method: str) -> str:
        """The method's name as a folder can have it."""
        return re.sub(r"[^A-Za-z0-9]+", "-", method).strip("-")

    def cell(self, method: str, seed: int) -> Config:
        """One run: a folder of its own below that of `config`, and the same data."""
        run_dir = self.config.run_dir / self.folder(method) / f"seed{seed}"
        own = overridden(self.config, self.methods[method])
        return own.model_copy(update={"seed": seed, "run_dir": run_dir})


MOST_TOLD = 20  # mistakes in one message

Schema = TypeVar("Schema", bound=Section)


def load(
    path: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    *,
    schema: type[Schema] = Config,
) -> Schema:
    """Reads a configuration file and applies `section.key=value` overrides.

    Raises ConfigError with one sentence a mistake; nothing is created on disk.
    """
    path = Path(path)
    tree = _parse(read_text(path, error=ConfigError), str(path))
    if not isinstance(tree, dict):
        held = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(f"{path}: must hold sections and keys, holds {held}")
    return _validated(tree, overrides, schema=schema, source=str(path))


def of(
    given: Mapping[str, Any], *, schema: type[Schema] = Config, source: str = "configuration"
) -> Schema:
    """A configuration, or a section of it, from its options; raises ConfigError."""
    return _validated(dict(given), (), schema=schema, source=source)


def overridden(given: Schema, overrides: list[str] | tuple[str, ...]) -> Schema:
    """The same configuration but for `section.key=value`; raises ConfigError."""
    tree = given.model_dump(mode="json")
    return _validated(tree, overrides, schema=type(given), source="configuration")


def _validated(
    tree: dict, overrides: list[str] | tuple[str, ...], *, schema: type[Schema], source: str
) -> Schema:
    for override in overrides:
        _override(tree, override)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        source = " ".join([source, *(f"--set {one_line(override)}" for override in overrides)])
        mistakes = error.errors()
        # A list whose entries are wrong is also called too short.
        outer = {place["loc"][:depth] for place in mistakes for depth in range(len(place["loc"]))}
        inner = [mistake for mistake in mistakes if mistake["loc"] not in outer]
        told = [_sentence(mistake, schema) for mistake in inner[:MOST_TOLD]]
        if len(inner) > MOST_TOLD:
            told.append(f"and {len(inner) - MOST_TOLD} more mistakes")
        raise ConfigError(f"{source}: {'; '.join(told)}") from None


def _parse(text: str, source: str) -> Any:
    try:
        return strict_yaml.parse(text)
    except InputError as error:
        raise ConfigError(f"{source}: {error}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    *sections, leaf = key.split(".")
    if not separator or not all([*sections, leaf]) or len(sections) > strict_yaml.DEEPEST:
        raise ConfigError(f"--set {override!r:.200}: must read section.key=value")
    for section in sections:
        if tree.get(section) is None:  # absent, or a section left empty
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override!r:.200}: {section} is no section")
    tree[leaf] = _parse(value, f"--set {override!r:.200}")


_PATTERNS = {
    r"^[A-Za-z0-9]+$": "letters and digits",
    r"^[A-Za-z0-9._-]+$": "letters, digits, '.', '_' and '-'",
    r"^[^:]+:[0-9]+$": "host:port",
}


def _sentence(error: Any, schema: type[Section]) -> str:
    key = one_line(".".join(map(str, error["loc"])))
    kind, given = error["type"], f"{error['input']!r:.200}"
    if kind == "extra_forbidden":
        known = ", ".join(_section(schema, error["loc"][:-1]).model_fields)
        return f"{key}: unknown key, known here are {known}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "value_error":
        return f"{key}.{error['ctx']['error']}" if key else str(error["ctx"]["error"])
    if kind in ("model_type", "dict_type"):
        got = "nothing" if error["input"] is None else given
        return f"{key}: must be a section that holds keys, got {got}"
    if kind == "too_short":
        return f"{key}: must hold at least {error['ctx']['min_length']}, got {given}"
    if kind == "string_pattern_mismatch":
        return f"{key}: must consist of {_PATTERNS[error['ctx']['pattern']]}, got {given}"
    if kind == "string_type" and isinstance(error["input"], int | float):
        return f"{key}: must be text, got the number {given}; quote it"
    return f"{key}: {error['msg']}, got {given}"


def _section(schema: type[Section], keys: tuple[str | int, ...]) -> type[Section]:
    """The section that `keys` lead to; some are names in a table, not of its options."""
    for key in keys:
        if str(key) in schema.model_fields:
            schema = _inner(schema.model_fields[str(key)].annotation) or schema
    return schema


def _inner(kind: Any) -> type[Section] | None:
    """The section that an annotation holds, be it in a table or a choice."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    return next(filter(None, map(_inner, get_args(kind))), None)


def dump(config: Section) -> str:
    """The resolved configuration as YAML that `load` reads back to the same values."""
    return strict_yaml.dump(config.model_dump(mode="json"))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their full keys, as in `evaluation.clips`."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def differences(ours: Section, theirs: Section) -> list[str]:
    """Every key on which two configurations differ, as `key: ours | theirs`."""
    a, b = flat(ours.model_dump(mode="json")), flat(theirs.model_dump(mode="json"))
    return [f"{key}: {a.get(key)} | {b.get(key)}" for key in a | b if a.get(key) != b.get(key)]
