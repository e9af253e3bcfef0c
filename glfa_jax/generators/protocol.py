"""What a video generator must offer so that it can be trained on fMRI and sampled from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from glfa_jax import config
from glfa_jax.convert.pretrained import Pretrained

# The letters are those of `Generator`.
Video = Float[Array, "b f h w 3"]
Encoding = Float[Array, "b l i j e"]
Latents = Float[Array, "b l i j c"]
Condition = Float[Array, "b n d"]


class Trainable(NamedTuple):
    """A named set of parameters that stage 2 may train.

    patterns: regular expressions, searched for in the '/'-joined paths of the denoiser's
        parameters.
    low_rank: the kernels that are found get low-rank updates (LoRA, arXiv 2106.09685), which train
        in their place; else what is found trains itself.
    beside: with low_rank, that kernels of two axes belong to `models.layers.Dense`, which computes
        their updates beside them (`models.lora.beside`); else they are summed up in every step,
        which serves any module and takes more time and memory.
    """

    patterns: tuple[str, ...]
    low_rank: bool = False
    beside: bool = False


class Generator(Protocol):
    """A latent video generator conditioned on tokens: modules and formulas, no parameters.

    Two trees of parameters go with it and are arguments of its methods: the *denoiser's*, which
    stage 2 trains in part, and the *codec's* (the autoencoder between video and latents), which
    never train. Every method that computes is pure and may be traced by `jit`, `grad` and
    `eval_shape`; the others read and write folders. Two generators are equal where the same
    compiled program serves both.

    Letters: b clips, f frames of video, h and w its pixels, l frames of latents, i and j their
    rows and columns, c latent channels, e channels of an encoding, n tokens, d their width.

    - Latents may have fewer frames than the video, and only some numbers of frames may be possible:
      `latent_shape` says so.
    - Time belongs to the generator: whole training steps of a diffusion (DDPM) or any number on the
      way of a flow. `times` draws it, `add_noise`, `target` and `denoise` read it, and `sample`
      walks through it with a method of the generator's own.
    - A generator finds its configuration in `folder`, `foundation/text-to-video` of a study or its
      `generator_folder`, where the captions' tokenizer lies in `tokenizer/` as well, CLIP's or T5's
      (`data.captions`).

    name: in the registry, which sets it.
    part: what the denoiser is called in checkpoints, and its folder in a stored model; neither
        "encoder" nor "lora", which lie beside it.
    trainable: the values that `cotrain.trainable` may have.
    exact: patterns, as of `Trainable`, of parameters that keep 32 bits where the others have 16
        (`hardware.frozen_dtype`).
    equal: lists of blocks that differ in their parameters alone and are passed by
        `models.equal_blocks`, by their names in the denoiser's parameters, such as "blocks" of
        blocks.0, blocks.1, ...: what of them is frozen is kept stacked (`models.stacked`).
    samplers: the values that `evaluation.sampler` may have.
    defaults: what `cotrain.trainable`, `evaluation.sampler` and other options of a section are when
        a configuration with this generator leaves them out, by `section.key`; where they are not
        named, the defaults of the configuration itself hold, which are those of `unet3d`.
    """

    name: ClassVar[str]
    part: ClassVar[str]
    trainable: ClassVar[Mapping[str, Trainable]]
    exact: ClassVar[tuple[str, ...]]
    equal: ClassVar[tuple[str, ...]]
    samplers: ClassVar[tuple[str, ...]]
    defaults: ClassVar[Mapping[str, Any]]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """From the configuration files in `folder` alone.

        Raises InputError where they are missing or describe another generator.
        """
        ...

    def as_trained(self, stage: config.Cotrain) -> Self:
        """As stage 2 trains it with these options (`offset_noise`, `zero_terminal_snr`,
        `temporal_dropout`), and as it is sampled from after that.

        Raises InputError, naming the key, for an option that it cannot be trained with.
        """
        ...

    def computing(self, *, dtype: DTypeLike, remat: bool = False) -> Self:
        """With modules that compute in `dtype`; remat: layers anew in the backward pass."""
        ...

    @property
    def folder(self) -> Path:
        """Where it was opened."""
        ...

    @property
    def condition_width(self) -> int:
        """d: width of the tokens it is conditioned on."""
        ...

    @property
    def condition_tokens(self) -> int:
        """n: how many tokens its text encoder makes of a caption, unless asked for others."""
        ...

    @property
    def longest_caption(self) -> int | None:
        """The most tokens that its text encoder makes of a caption; None: any number."""
        ...

    @property
    def training_steps(self) -> int:
        """Into how many steps training divides time; sampling takes fewer."""
        ...

    @property
    def codec_config(self) -> Mapping[str, Any]:
        """The codec's configuration: with its parameters, all that kept encodings depend on."""
        ...

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape (l, i, j, c) of the latents of a clip of so many frames and pixels.

        Raises InputError naming data.frames or data.resolution where there are none of it.
        """
        ...

    def denoiser_shapes(self) -> dict:
        """The denoiser's parameters as `jax.ShapeDtypeStruct`; reads no weights."""
        ...

    def codec_shapes(self) -> dict:
        """The codec's parameters likewise."""
        ...

    def validate_weights(self, *, model: Path | None, text_encoder: bool) -> None:
        """Raises InputError, in seconds, where weights that `load(model)` and `load_codec` would
        read, and `load_text_encoder` where it is asked for, are missing or do not fit."""
        ...

    def load(self, model: Path | None = None) -> dict:
        """The denoiser's parameters, float32; in host memory, or better still in their files
        (`convert.stored.Stored`), since they are placed on devices one by one.

        model: a folder that `save` wrote; None for the pretrained ones. Raises InputError.
        """
        ...

    def save(self, denoiser: dict, model: Path) -> None:
        """Writes all of the denoiser's parameters into the folder `part` of `model`."""
        ...

    def export(self, denoiser: dict, codec: dict, folder: Path) -> None:
        """Writes a folder that `open` reads and that decodes alone, with these parameters as its
        pretrained ones; the text encoder is left out."""
        ...

    def load_codec(self) -> dict:
        """The codec's parameters likewise."""
        ...

    def load_text_encoder(self, *, compute_dtype: DTypeLike) -> Pretrained:
        """The model whose tokens the denoiser was pretrained with: applied to the tokenizer's
        numbers (b, n) it gives them as `.hidden` (b, n, d)."""
        ...

    def text_encoder_shapes(self, *, compute_dtype: DTypeLike) -> Pretrained:
        """The same with shapes in place of its variables; reads no weights."""
        ...

    def encode(self, codec: dict, video: Video) -> Encoding:
        """What the codec says of clips, RGB in [-1, 1]: all that `draw` needs, and what a prepared
        store keeps (`data.latents`). Of a variational autoencoder, mean and log-variance one after
        the other along the channels."""
        ...

    def draw(self, encoding: Encoding, key: Key[Array, ""]) -> Latents:
        """Latents of about unit variance, drawn from the posterior that `encode` gave."""
        ...

    def decode(self, codec: dict, latents: Latents) -> Video:
        """Latents as `draw` and `sample` give them to RGB in [-1, 1] (not clipped)."""
        ...

    def times(self, key: Key[Array, ""], clips: int) -> Num[Array, " b"]:
        """Draws a time of every clip for a training step."""
        ...

    def noise(self, key: Key[Array, ""], clean: Latents) -> Latents:
        """Draws the noise of a training step for clean latents."""
        ...

    def add_noise(self, clean: Latents, *, noise: Latents, t: Num[Array, " b"]) -> Latents:
        """Latents at time `t` on the way from clean ones to noise."""
        ...

    def target(self, clean: Latents, *, noise: Latents, t: Num[Array, " b"]) -> Latents:
        """What `denoise` should give for `add_noise(clean, noise, t)`; the loss of stage 2 is the
        mean squared difference."""
        ...

    def denoise(
        self,
        denoiser: dict,
        latents: Latents,
        t: Num[Array, "*b"],
        condition: Condition,
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> Latents:
        """The denoiser's prediction at one time for all clips, or at one of each.

        dropout: the key of a training step, with `cotrain.temporal_dropout` above 0; nothing is
        dropped without.
        """
        ...

    def sample(
        self, denoise: Callable[[Latents, Any], Latents], noise: Latents, *, steps: int, method: str
    ) -> Latents:
        """Turns standard normal noise into clean latents.

        denoise: `(latents, t)` to a prediction, `t` a scalar; guidance is part of it.
        steps: calls of it, fewer than `training_steps`. method: one of `samplers`. Both are static.
        """
        ...
