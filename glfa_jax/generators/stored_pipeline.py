"""What generators share that are stored as a pipeline of diffusers: files, and the codec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import copy_files, read_config, seal
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.errors import InputError
from glfa_jax.generators.protocol import Encoding, Latents, Video
from glfa_jax.models.vae import Posterior


class StoredPipeline:
    """Fulfils a part of `glfa_jax.generators.Generator`, where the members are described.

    denoiser_kind, codec_kind, text_kind: of `convert.pretrained`, for the folders `part`, `vae` and
    `text_encoder`. vae: the codec; it has encode, decode, to_diffusion and from_diffusion.
    """

    part: ClassVar[str]
    denoiser_kind: ClassVar[str]
    codec_kind: ClassVar[str]
    text_kind: ClassVar[str]
    folder: Path
    vae: Any

    def denoiser_as_stored(self) -> Any:
        """The denoiser's module as its configuration file describes it."""
        raise NotImplementedError

    @property
    def codec_config(self) -> Mapping[str, Any]:
        return read_config(self.folder / "vae")

    def denoiser_shapes(self) -> dict:
        return _shapes(self.denoiser_kind, self.folder / self.part)

    def codec_shapes(self) -> dict:
        return _shapes(self.codec_kind, self.folder / "vae")

    def validate_weights(self, *, model: Path | None, text_encoder: bool) -> None:
        denoiser = (model or self.folder) / self.part
        folders = {self.denoiser_kind: denoiser, self.codec_kind: self.folder / "vae"}
        if text_encoder:
            folders[self.text_kind] = self.folder / "text_encoder"
        if pretrained.configured(self.denoiser_kind, denoiser) != self.denoiser_as_stored():
            raise InputError(f"{denoiser}: has another architecture than {self.folder / self.part}")
        for kind, folder in folders.items():
            pretrained.validate_weights(kind, folder)

    def load(self, model: Path | None = None) -> dict:
        folder = self.folder if model is None else model
        loaded = pretrained.load(self.denoiser_kind, folder / self.part, stored=True)
        return loaded.variables["params"]

    def save(self, denoiser: dict, model: Path) -> None:
        architecture = read_config(self.folder / self.part)
        pretrained.save(self.denoiser_kind, model / self.part, denoiser, config=architecture)

    def export(self, denoiser: dict, codec: dict, folder: Path) -> None:
        self.save(denoiser, folder)
        pretrained.save(self.codec_kind, folder / "vae", codec, config=self.codec_config)
        schedule = folder / "scheduler"
        schedule.mkdir()
        copy_files([self.folder / "scheduler" / "scheduler_config.json"], schedule)
        seal(schedule)

    def load_codec(self) -> dict:
        loaded = pretrained.load(self.codec_kind, self.folder / "vae", stored=True)
        return loaded.variables["params"]

    def load_text_encoder(self, *, compute_dtype: DTypeLike = jnp.float32) -> Pretrained:
        folder = self.folder / "text_encoder"
        return pretrained.load(self.text_kind, folder, compute_dtype=compute_dtype, stored=True)

    def text_encoder_shapes(self, *, compute_dtype: DTypeLike) -> Pretrained:
        place = self.folder / "text_encoder"
        module, shapes = pretrained.described(
            self.text_kind, read_config(place), place=place, dtype=compute_dtype
        )
        return Pretrained(module, {"params": shapes})

    def encode(self, codec: dict, video: Video) -> Encoding:
        posterior: Any = self.vae.apply({"params": codec}, video, method="encode")
        return jnp.concatenate([posterior.mean, posterior.log_variance], axis=-1)

    def draw(self, encoding: Encoding, key: Key[Array, ""]) -> Latents:
        """mean + sqrt(variance) · normal, at the scale that config.json tells."""
        posterior = Posterior(*jnp.split(encoding, 2, axis=-1))
        return self.vae.to_diffusion(posterior.sample(key))

    def decode(self, codec: dict, latents: Latents) -> Video:
        unscaled = self.vae.from_diffusion(latents)
        video: Any = self.vae.apply({"params": codec}, unscaled, method="decode")
        return video


def _shapes(kind: str, folder: Path) -> dict:
    return pretrained.described(kind, read_config(folder), place=folder)[1]
