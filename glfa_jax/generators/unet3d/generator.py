"""The UNet3D pipeline as a generator (arXiv 2308.06571): DDPM in the latents of Stable Diffusion's
autoencoder, which knows single frames; time is what the U-Net adds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Key

from glfa_jax import config
from glfa_jax.convert import pretrained
from glfa_jax.diffusion import sampler
from glfa_jax.diffusion.schedule import Schedule, noise_like
from glfa_jax.errors import InputError
from glfa_jax.generators import Trainable, register
from glfa_jax.generators.protocol import Condition, Latents
from glfa_jax.generators.stored_pipeline import StoredPipeline
from glfa_jax.models.unet3d import UNet3D
from glfa_jax.models.vae import AutoencoderKL


@register("unet3d")
@dataclass(frozen=True)
class UNet3DGenerator(StoredPipeline):
    """Fulfils `glfa_jax.generators.Generator`, where its members are described.

    folder: the pipeline's. offset_noise: strength of the noise that all frames and pixels of a
    clip's channel share while training.
    """

    folder: Path
    unet: UNet3D
    vae: AutoencoderKL
    schedule: Schedule
    offset_noise: float = 0.0

    part: ClassVar[str] = "unet"
    denoiser_kind: ClassVar[str] = "unet3d"
    codec_kind: ClassVar[str] = "vae"
    text_kind: ClassVar[str] = "clip_text"
    samplers: ClassVar[tuple[str, ...]] = ("dpm++", "ddim")
    exact: ClassVar[tuple[str, ...]] = ()
    equal: ClassVar[tuple[str, ...]] = ()
    # Attention and temporal convolutions: all that the official code trains, or its LoRA adapts.
    trainable: ClassVar[Mapping[str, Trainable]] = {
        "attention": Trainable(("attn1", "attn2", "temp_conv")),
        "lora": Trainable(
            (
                r"/attn[12]/to_(q|k|v|out\.0)/kernel$",
                r"/temp_convs\.\d+/conv\d\.\d/kernel$",
            ),
            low_rank=True,
            beside=True,
        ),
    }
    # As the configuration itself has them.
    defaults: ClassVar[Mapping[str, Any]] = {
        "cotrain.trainable": "attention",
        "evaluation.sampler": "dpm++",
        "evaluation.sampling_steps": 25,
        "evaluation.guidance_scale": 9.0,
    }

    @classmethod
    def open(cls, folder: Path) -> Self:
        return cls(
            folder,
            unet=pretrained.configured("unet3d", folder / "unet"),
            vae=pretrained.configured("vae", folder / "vae"),
            schedule=pretrained.read_schedule(folder),
        )

    def as_trained(self, stage: config.Cotrain) -> Self:
        """`zero_terminal_snr` moves the schedule's last step to pure noise (arXiv 2305.08891),
        of which only predicted velocity tells the clean latents."""
        schedule = self.schedule
        if stage.zero_terminal_snr:
            if schedule.prediction_type != "v_prediction":
                raise InputError(
                    "cotrain.zero_terminal_snr: needs a generator of prediction_type "
                    f"v_prediction, the one in {self.folder} has {schedule.prediction_type}"
                )
            schedule = schedule.rescale_zero_terminal_snr()
        trained = replace(self, schedule=schedule, offset_noise=stage.offset_noise)
        if stage.temporal_dropout:
            trained = replace(trained, unet=self.unet.clone(dropout=stage.temporal_dropout))
        return trained

    def computing(self, *, dtype: DTypeLike, remat: bool = False) -> Self:
        unet = self.unet.clone(dtype=dtype, remat=remat)
        return replace(self, unet=unet, vae=self.vae.clone(dtype=dtype))

    @property
    def condition_width(self) -> int:
        return self.unet.cross_attention_dim

    @property
    def condition_tokens(self) -> int:
        text = pretrained.configured("clip_text", self.folder / "text_encoder")
        return text.max_position_embeddings

    @property
    def longest_caption(self) -> int:
        return self.condition_tokens

    @property
    def training_steps(self) -> int:
        return self.schedule.num_train_timesteps

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        factor = 2 ** (len(self.vae.block_out_channels) - 1)
        if height % factor or width % factor:
            raise InputError(
                f"data.resolution: {(height, width)} must be multiples of {factor}, the "
                f"reduction of the VAE in {self.folder}"
            )
        return frames, height // factor, width // factor, self.unet.in_channels

    def denoiser_as_stored(self) -> Any:
        return self.unet.clone(dropout=0.0)

    def times(self, key: Key[Array, ""], clips: int) -> Int[Array, " b"]:
        return jax.random.randint(key, (clips,), 0, self.training_steps)

    def noise(self, key: Key[Array, ""], clean: Latents) -> Latents:
        return noise_like(key, clean, offset_strength=self.offset_noise)

    def add_noise(self, clean: Latents, *, noise: Latents, t: Int[Array, " b"]) -> Latents:
        """sqrt(ᾱ_t) clean + sqrt(1 − ᾱ_t) noise."""
        return self.schedule.add_noise(clean, noise=noise, t=t)

    def target(self, clean: Latents, *, noise: Latents, t: Int[Array, " b"]) -> Latents:
        """The noise, or the velocity sqrt(ᾱ_t) noise − sqrt(1 − ᾱ_t) clean, by the schedule."""
        return self.schedule.target(clean, noise=noise, t=t)

    def denoise(
        self,
        denoiser: dict,
        latents: Latents,
        t: Int[Array, "*b"],
        condition: Condition,
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> Latents:
        training = {} if dropout is None else {"deterministic": False, "rngs": {"dropout": dropout}}
        prediction: Any = self.unet.apply({"params": denoiser}, latents, t, condition, **training)
        return prediction

    def sample(
        self, denoise: Callable[[Latents, Any], Latents], noise: Latents, *, steps: int, method: Any
    ) -> Latents:
        """DPM-Solver++(2M) (arXiv 2211.01095) or DDIM (arXiv 2010.02502), in float32."""
        return sampler.sample(denoise, noise, schedule=self.schedule, steps=steps, method=method)
