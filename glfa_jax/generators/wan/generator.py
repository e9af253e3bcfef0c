"""The Wan pipeline as a generator (arXiv 2503.20314): a flow in the latents of an autoencoder that
compresses time as well, predicted by a transformer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from glfa_jax import config
from glfa_jax.convert import pretrained
from glfa_jax.diffusion import sampler
from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.errors import InputError
from glfa_jax.generators import Trainable, register
from glfa_jax.generators.protocol import Condition, Latents
from glfa_jax.generators.stored_pipeline import StoredPipeline
from glfa_jax.models.wan import WanTransformer
from glfa_jax.models.wan_vae import AutoencoderKLWan

# As WanPipeline pads captions; its text encoder knows no longest one.
_TOKENS = 512


@register("wan")
@dataclass(frozen=True)
class WanGenerator(StoredPipeline):
    """Fulfils `glfa_jax.generators.Generator`, where its members are described.

    folder: the pipeline's. Its times are shares of noise times `training_steps`.
    """

    folder: Path
    transformer: WanTransformer
    vae: AutoencoderKLWan
    schedule: FlowSchedule

    part: ClassVar[str] = "transformer"
    denoiser_kind: ClassVar[str] = "wan"
    codec_kind: ClassVar[str] = "wan_vae"
    text_kind: ClassVar[str] = "umt5_text"
    samplers: ClassVar[tuple[str, ...]] = ("unipc", "euler")
    exact: ClassVar[tuple[str, ...]] = ("/norm[123]/", "time_embedder", "scale_shift_table")
    equal: ClassVar[tuple[str, ...]] = ("blocks",)
    trainable: ClassVar[Mapping[str, Trainable]] = {
        "lora": Trainable(
            (r"/attn[12]/to_(q|k|v|out\.0)/kernel$", r"/ffn\.net\.(0\.proj|2)/kernel$"),
            low_rank=True,
            beside=True,
        ),
        "attention": Trainable(("attn1", "attn2")),
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "cotrain.trainable": "lora",
        "evaluation.sampler": "unipc",
        "evaluation.sampling_steps": 30,
        "evaluation.guidance_scale": 5.0,
    }

    @classmethod
    def open(cls, folder: Path) -> Self:
        transformer = pretrained.configured("wan", folder / "transformer")
        vae = pretrained.configured("wan_vae", folder / "vae")
        pretrained.require_lone_transformer(folder)
        if transformer.in_channels != vae.z_dim:
            raise InputError(
                f"{folder}: transformer is made for latents of {transformer.in_channels} channels, "
                f"but those of vae have {vae.z_dim}"
            )
        return cls(folder, transformer, vae, schedule=pretrained.read_flow(folder))

    def as_trained(self, stage: config.Cotrain) -> Self:
        for key, reason in (
            ("offset_noise", "a flow ends in plain noise"),
            ("zero_terminal_snr", "a flow ends in pure noise as it is"),
            ("temporal_dropout", "it has no convolutions over time"),
        ):
            if given := getattr(stage, key):
                raise InputError(
                    f"cotrain.{key}: {given}, cannot be used with the generator wan: {reason}"
                )
        return self

    def computing(self, *, dtype: DTypeLike, remat: bool = False) -> Self:
        transformer = self.transformer.clone(dtype=dtype, remat=remat)
        return replace(self, transformer=transformer, vae=self.vae.clone(dtype=dtype))

    @property
    def condition_width(self) -> int:
        return self.transformer.text_dim

    @property
    def condition_tokens(self) -> int:
        return _TOKENS

    @property
    def longest_caption(self) -> None:
        return None

    @property
    def training_steps(self) -> int:
        return self.schedule.num_train_timesteps

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        every, factor = self.vae.frames_per_latent, self.vae.pixels_per_latent
        if frames % every != 1 % every:
            raise InputError(
                f"data.frames: {frames}, must be a multiple of {every} and one more: the VAE in "
                f"{self.folder} takes the first frame by itself and then {every} at a time"
            )
        _, *patch = self.transformer.patch_size
        sides = tuple(factor * side for side in patch)
        if height % sides[0] or width % sides[1]:
            wanted = f"{sides[0]}" if sides[0] == sides[1] else f"{sides[0]} and {sides[1]}"
            raise InputError(
                f"data.resolution: {(height, width)} must be multiples of {wanted}, the reduction "
                f"of the VAE times the transformer's patches in {self.folder}"
            )
        return 1 + (frames - 1) // every, height // factor, width // factor, self.vae.z_dim

    def denoiser_as_stored(self) -> Any:
        return self.transformer

    def times(self, key: Key[Array, ""], clips: int) -> Float[Array, " b"]:
        return self.schedule.times(key, clips)

    def noise(self, key: Key[Array, ""], clean: Latents) -> Latents:
        return jax.random.normal(key, clean.shape, clean.dtype)

    def add_noise(self, clean: Latents, *, noise: Latents, t: Float[Array, " b"]) -> Latents:
        """(1 − σ) clean + σ noise with σ = t / T."""
        return self.schedule.add_noise(clean, noise=noise, t=t)

    def target(self, clean: Latents, *, noise: Latents, t: Float[Array, " b"]) -> Latents:
        """The velocity, noise − clean, at every time."""
        return self.schedule.target(clean, noise=noise)

    def denoise(
        self,
        denoiser: dict,
        latents: Latents,
        t: Float[Array, "*b"],
        condition: Condition,
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> Latents:
        prediction: Any = self.transformer.apply({"params": denoiser}, latents, t, condition)
        return prediction

    def sample(
        self, denoise: Callable[[Latents, Any], Latents], noise: Latents, *, steps: int, method: Any
    ) -> Latents:
        """UniPC (arXiv 2302.04867) or Euler's method, in float32."""
        return sampler.sample(denoise, noise, schedule=self.schedule, steps=steps, method=method)
