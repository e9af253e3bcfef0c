"""The parts that map fMRI to the condition of the generator."""

from typing import Literal

from pydantic import Field, model_validator

from glfa_jax.config.base import NAME_OF_METHOD, Positive, Section


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
        pattern=NAME_OF_METHOD,
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
    tokens: Positive | None = Field(
        default=None,
        description="that the generator is conditioned on; left out: as many as its text encoder "
        "makes of a caption",
    )
