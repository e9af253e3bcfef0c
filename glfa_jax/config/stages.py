"""How each stage trains."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from glfa_jax.config.base import (
    NAME_OF_METHOD,
    Beta,
    Count,
    Fraction,
    PairedFraction,
    Positive,
    Rate,
    Section,
)

# Scales of the loss of stage 2, by the source that states them (SPEC §3).
PRESETS = {
    "code": {"glfa_scale": 1.0, "regularisation_scale": 1.0, "alignment_scale": 0.1},
    "paper": {"glfa_scale": 0.5, "regularisation_scale": 1.0, "alignment_scale": 1.0},
}
# Options that name folders of weights, which are known by their checksums wherever they lie.
STARTS = frozenset({"start_from", "encoder_from", "generator_from"})

ENCODER_STEPS = 500  # of adapt.encoder where train.adapt is asked for it by --encoder alone

Dropout = Annotated[float, Field(ge=0, lt=1)]


def called(folder: Path) -> str:
    """The end of a path, by which results name weights."""
    return "/".join(folder.parts[-2:])


class Lora(Section):
    rank: Positive = 8
    scale: float = 1.0


class Descent(Section):
    """What all training in steps has."""

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


class Stage(Descent):
    """What every training stage has."""

    dropout: Dropout = 0.0
    log_every: Positive = 10
    save_every: Positive = 500
    keep: Positive = Field(default=2, description="checkpoints kept")
    keep_best: Count = Field(default=0, description="those of lowest loss kept besides")
    accumulate: Positive = Field(
        default=1,
        description="parts of a batch computed one after the other; contrasts are within a part",
    )


class Pretrain(Stage):
    later: ClassVar[frozenset[str]] = frozenset({"start_from"})

    start_from: Path | None = Field(
        default=None,
        description="imported fMRI autoencoder (`convert import --kind fmri_autoencoder`) that is "
        'fine-tuned; left out: random weights, the paper\'s "w/o pretraining"',
    )
    steps: Positive = 2000
    batch_size: Positive = Field(default=64, description="fMRI volumes")
    learning_rate: float = Field(default=1e-4, gt=0)


class Contrast(Stage):
    later: ClassVar[frozenset[str]] = frozenset({"start_from", "logit_scale_max"})

    start_from: Path | None = Field(
        default=None,
        description="fMRI encoder (`convert import --kind fmri_encoder`) to go on from, without "
        "its alignment if it has one; pretraining is left out then. Left out: the pretrained "
        "autoencoder's encoder",
    )
    steps: Positive = 12000
    batch_size: Positive = 32
    learning_rate: float = Field(default=2e-5, gt=0)
    dropout: Dropout = 0.6
    logit_scale_rate: Rate = Field(
        default=10.0, description="learning-rate multiplier of the logit scale"
    )
    logit_scale_max: float | None = Field(
        default=None,
        gt=0,
        description="most that cosines are multiplied by; CLIP clamps at 100. Left out: no limit",
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

    Two presets name the scales:

        code     glfa_scale 1     alignment_scale 0.1    the official code; the default
        paper    glfa_scale 1/2   alignment_scale 1      the supplement's lambda of Eq. 7

    That the parts weigh the same within lambda is our reading: the supplement says nothing of them.
    """

    later: ClassVar[frozenset[str]] = frozenset(
        {"encoder_from", "generator_from", "temporal_dropout", "frozen_kernels"}
    )

    steps: Count = Field(
        default=18000,
        description="0 with encoder_from or generator_from: what these hold is decoded as it is",
    )
    batch_size: Positive = 16
    learning_rate: float = Field(default=3e-5, gt=0)
    encoder_from: Path | None = Field(
        default=None,
        description="fMRI encoder to go on from, as in contrast.start_from or as stage 2 leaves it "
        "(model/encoder), with its alignment if it has one; earlier stages are left out then",
    )
    generator_from: Path | None = Field(
        default=None,
        description="folder that holds a generator's trained part to go on from, such as unet or "
        "transformer, as stage 2 leaves it (model); left out: the foundation's",
    )
    trainable: str = Field(
        default="attention",
        description="a set of the generator's parameters; unet3d: attention (attn1, attn2 and "
        "temp_conv), or lora on them; wan: lora on attention and feed-forward (default there), or "
        "attention",
    )
    lora: Lora = Lora()
    frozen_kernels: Literal["int8", "nf4"] | None = Field(
        default=None,
        description="wan: kernels of its blocks that are not trained, rounded to 8 bits or 4 while "
        "the others train (QLoRA); left out: as hardware.frozen_dtype says",
    )
    preset: Literal["code", "paper"] | None = Field(
        default="code",
        description="whose loss scales: code or paper. Scales given beside it win; the name is "
        "then null, or that of the preset that they amount to",
    )
    glfa_scale: Rate = Field(
        default=1.0,
        description="of both alignment losses: 1 in the official code, 1/2 (lambda of Eq. 7) in "
        "the paper's supplement; 0: without consistency loss",
    )
    regularisation_scale: Rate = Field(default=1.0, description="of MSE(aligned, original)")
    alignment_scale: Rate = Field(
        default=0.1, description="of MSE between subjects: 0.1 in the official code, else 1"
    )
    temporal_dropout: Dropout = Field(
        default=0.0,
        description="in the generator's temporal convolutions while training; diffusers' UNet3D "
        "has 0.1 there",
    )
    paired_fraction: PairedFraction = 1.0
    offset_noise: Rate = 0.0
    zero_terminal_snr: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, given: Any) -> Any:
        """Scales that are left out are the preset's; the preset is what all of them amount to."""
        if not isinstance(given, dict):
            return given
        named = given.get("preset")
        own = {key: given[key] for key in PRESETS["code"] if key in given}
        if named is not None and not (isinstance(named, str) and named in PRESETS):
            return given  # rejected as a value
        scales = {**PRESETS[named or "code"], **own}
        amount_to = next((name for name, each in PRESETS.items() if each == scales), None)
        if named is not None and len(own) == len(scales) and amount_to != named:
            raise ValueError(
                f"preset: {named}, but all scales beside it are others, "
                f"{', '.join(f'{key} {x}' for key, x in own.items())}; leave it or them out"
            )
        return {**given, **scales, "preset": amount_to}

    @model_serializer(mode="wrap")
    def _preset_or_scales(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a preset says is not written beside it, so that either may be overridden."""
        tree = written(self)
        said = PRESETS.get(tree.get("preset"), {})
        return {key: x for key, x in tree.items() if (key, x) not in said.items()}

    def comparable(self, *, but: Iterable[str] = ()) -> dict[str, Any]:
        """With the scales themselves, as they were written before there were presets."""
        return super().comparable(but={*but, "preset"})

    @model_validator(mode="after")
    def _one_noise(self) -> "Cotrain":
        if self.offset_noise and self.zero_terminal_snr:
            raise ValueError(
                f"offset_noise: must be 0 when zero_terminal_snr is true, got {self.offset_noise}"
            )
        return self

    @model_validator(mode="after")
    def _something_to_decode(self) -> "Cotrain":
        if self.steps == 0 and self.encoder_from is self.generator_from is None:
            raise ValueError("steps: must be above 0 without encoder_from or generator_from, got 0")
        return self


class AdaptEncoder(Descent):
    """Training the encoder for a new subject behind his layer; not part of the paper.

    What the generator is given is drawn to what it is given of the training subjects, who saw the
    same clips. The last fifth of the clips is held out: the encoder that is kept is the one that
    came nearest there, which may be the one of stage 2.
    """

    steps: Count = Field(
        default=0, description=f"at most; 0: the encoder stays; --encoder: {ENCODER_STEPS}"
    )
    batch_size: Positive = Field(default=16, description="fMRI windows of the new subject")
    learning_rate: float = Field(default=3e-5, gt=0, description="by default that of stage 2")
    warmup_steps: Count = Field(
        default=20, description="AdamW's first steps would be as long as later ones"
    )
    measure_every: Positive = Field(
        default=10, description="steps between two looks at the clips that are held out"
    )
    patience: Positive = Field(
        default=5, description="looks without a new lowest loss after which training ends"
    )


class Adapt(Stage):
    """Fitting the alignment to a new subject (train.adapt); not part of the paper.

    Of methods that descend a gradient, as GLFA: both parts of the loss weigh the same. On simulated
    data less regularisation brings the maps nearer still to the others', but flattens them, as
    averages are flatter than what is averaged, and the encoder, which stays as it is, then takes
    them for less alike.
    """

    later: ClassVar[frozenset[str]] = frozenset({"method", "options", "data", "encoder"})

    method: str | None = Field(
        default=None,
        pattern=NAME_OF_METHOD,
        description="what is fitted to new subjects, as of alignment.method; left out: that method",
    )
    options: dict[str, bool | int | float | str] = Field(
        default={}, description="of that method, where it is not glfa"
    )
    data: Literal["paired", "unlabelled", "unlabelled-test"] | None = Field(
        default=None,
        description="paired: training clips that training subjects saw as well; unlabelled: any of "
        "his training clips; unlabelled-test: the very clips that are to be decoded, without their "
        "videos; left out: the least that the method needs, which may be no fMRI at all",
    )
    steps: Positive = 300
    batch_size: Positive = Field(default=16, description="fMRI windows of the new subject")
    learning_rate: float = Field(default=1e-2, gt=0)
    regularisation_scale: Rate = Field(default=1.0, description="of MSE(aligned, original)")
    alignment_scale: Rate = Field(
        default=1.0, description="of MSE to the mean of the training subjects' aligned maps"
    )
    encoder: AdaptEncoder = AdaptEncoder()

    @property
    def with_encoder(self) -> bool:
        """Whether the encoder is trained behind the layer."""
        return self.encoder.steps > 0

    def choosing(
        self, *, method: str | None = None, data: str | None = None, encoder: bool = False
    ) -> list[str]:
        """Overrides of a configuration for what is chosen in place of these options.

        encoder: to be trained as well, in as many steps as these options say if they say so.
        """
        given = {"method": method, "data": data}
        chosen = [f"adapt.{key}={x}" for key, x in given.items() if x is not None]
        if encoder:
            chosen.append(f"adapt.encoder.steps={self.encoder.steps or ENCODER_STEPS}")
        return chosen

    @model_validator(mode="after")
    def _of_a_method(self) -> "Adapt":
        if self.options and self.method is None:
            raise ValueError("options: are those of adapt.method, must be left out without it")
        if self.with_encoder and self.data not in (None, "paired"):
            raise ValueError(
                f"data: {self.data}, must be paired or left out with adapt.encoder.steps above 0: "
                "the encoder is trained on clips that training subjects saw as well"
            )
        return self


def _penalty(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (number and 0 <= value < math.inf):
        return value
    raise PydanticCustomError("penalty", "Input should be 'auto' or a finite number from 0")


Penalty = Annotated[Literal["auto"] | float, BeforeValidator(_penalty)]


class Lea(Section):
    """Ridge regression in place of stages 1 and 2 (SPEC §6.3)."""

    alpha: Penalty = Field(
        default="auto",
        description="weight of the squared norm of the weights; auto: that with which one training "
        "subject (of one alone, one half of the clips) is predicted best from another; LEA's "
        "authors took 500, for more samples",
    )
    batch_size: Positive = Field(default=64, description="fMRI windows encoded at once")
    cotrain_generator: bool = Field(
        default=False,
        description="the generator trains on the regression's conditions of training windows, as "
        "`cotrain` says; false: it stays as it is",
    )
