"""On which devices, and in which precision."""

from typing import Literal

from pydantic import Field, model_validator

from glfa_jax.config.base import Count, Positive, Section


class MeshSize(Section):
    """How many devices share the work; the product is the number of devices."""

    data: Positive | None = Field(default=None, description="all that are left when left out")
    fsdp: Positive = Field(default=1, description="devices that large parameters are spread over")
    frame: Positive = Field(default=1, description="devices that the frames of a clip share")


class Processes(Section):
    """One process; or several, that find each other (TPU pods, Slurm) or are named here."""

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
    attention: Literal["auto", "einsum", "fused"] = Field(
        default="auto",
        description="einsum: runs everywhere, holds all scores; fused: cuDNN's or the TPU kernel "
        "wherever it runs and both sequences have 128 positions; auto: that from 512 positions, "
        "where it saves memory. Layers with a mask or active dropout take einsum",
    )
    moment_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="of AdamW's first moments; the second ones change too little from step to step "
        "for bfloat16",
    )
    matmul_precision: Literal["default", "high", "highest"] | None = Field(
        default=None,
        description="of float32 products, jax_default_matmul_precision: GPUs and TPUs round their "
        "factors unless it is highest; left out, as JAX is set",
    )
    profile: tuple[Positive, Positive] | None = Field(
        default=None,
        description="first and last step of each stage that are recorded in its folder `profile`, "
        "for xprof",
    )
    sharding: dict[str, tuple[Literal["fsdp"] | None, ...]] = Field(
        default={}, description="parameters by pattern: their axes; else the largest that divides"
    )
    shard_from_bytes: Count = Field(
        default=4 * 2**20, description="smaller parameters lie on every device"
    )

    @model_validator(mode="after")
    def _profile_in_order(self) -> "Hardware":
        if self.profile and self.profile[0] > self.profile[1]:
            raise ValueError(f"profile: {list(self.profile)}, the first step is after the last")
        return self
