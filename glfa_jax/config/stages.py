"""How each stage trains."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from glfa_jax.config.base import Beta, Count, Fraction, PairedFraction, Positive, Rate, Section


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
