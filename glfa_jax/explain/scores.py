"""What cortex contributes to: scores of a trained decoder that need no sampling of videos.

Let c(x) be the condition tokens of a window x, c₀ those of the average training window, and d =
c(x) − c₀ for the whole window. A video is drawn from c(x), away from c₀ (SPEC §4), and sees nothing
else of the fMRI.

    condition   ⟨c(x') − c₀, d⟩ / ⟨d, d⟩: how much of d is left in the condition of changed maps x'.
                1 for the whole window, 0 for the average. It asks what the prediction as a whole is
                made of, right or wrong.
    image       e(x') · (t − t̄): how near the embedding in CLIP's joint space comes to that of the
                clip's own frames, t, beyond the mean t̄ over the clips that are explained. 0 on
                average for an embedding that does not depend on the clip.
    caption     the same with the embedding of the clip's caption.
    video       L(c₀) − L(c(x')): by how much the generator denoises the true clip better than with
                c₀, L the loss of stage 2 over some draws of time and noise, the same for all x'.

All but `condition` need to know the clip, and are about what is right in the prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from glfa_jax import config
from glfa_jax.generators import Generator
from glfa_jax.ops import attention

CONDITION, IMAGE, CAPTION, VIDEO = "condition", "image", "caption", "video"
EMBEDDED = (IMAGE, CAPTION)


def computing(encoder: Any, hardware: config.Hardware) -> Any:
    """The module as it computes in training: slopes take a backward pass, and as much memory."""
    options: dict[str, Any] = {"dtype": jnp.dtype(hardware.compute_dtype)}
    if hasattr(encoder, "remat"):
        options["remat"] = hardware.remat
    return encoder.clone(**options)


@dataclass(frozen=True)
class Scoring:
    """Scores by their names, as `measure` takes them: `given` makes the first argument. Those that
    are equal share their compiled programs.

    encoder: module of the fMRI encoder, or of the regression in its place. generator: for `video`.
    attention: `hardware.attention`.
    """

    encoder: Any
    names: tuple[str, ...]
    generator: Generator | None = None
    attention: str = "auto"

    def given(
        self,
        variables: Any,
        maps: Float[np.ndarray, "b w height width"],
        *,
        average: Float[np.ndarray, "w height width"],
        towards: Mapping[str, Float[np.ndarray, "b e"]] | None = None,
        video: "Noised | None" = None,
    ) -> dict[str, Any]:
        """All that the scores of these clips depend on besides the maps.

        variables: of the encoder. average: what maps are compared with. towards: for `image` and
        `caption`, t − t̄. video: for `video`.
        """
        found: dict[str, Any] = {"encoder": variables, "towards": dict(towards or {})}
        if CONDITION in self.names or VIDEO in self.names:
            whole, alone = self._conditions(
                variables, jnp.asarray(maps), jnp.asarray(average)[None]
            )
            found |= {"alone": alone}
            if CONDITION in self.names:
                found |= {"departure": _departure(whole, alone)}
        if VIDEO in self.names:
            assert video is not None
            everyone = jnp.broadcast_to(alone, (len(maps), *alone.shape[1:]))
            found |= {"video": video, "losses": self._losses(video, everyone)}
        return found

    def __call__(
        self, given: dict[str, Any], maps: Float[Array, "b w height width"]
    ) -> Float[Array, "b k"]:
        with attention.using(self.attention):
            encoded: Any = self.encoder.apply(given["encoder"], maps)
            found = []
            for name in self.names:
                if name == CONDITION:
                    moved = encoded.condition - given["alone"]
                    found.append((moved * given["departure"]).sum((1, 2)))
                elif name in EMBEDDED:
                    found.append((encoded.embedding * given["towards"][name]).sum(-1))
                else:
                    losses = self._loss(given["video"], encoded.condition)
                    found.append((given["losses"] - losses).mean(-1))
        return jnp.stack(found, axis=-1).astype(jnp.float32)

    @partial(jax.jit, static_argnums=0)
    def _conditions(self, variables: Any, maps: Array, average: Array) -> tuple[Array, Array]:
        with attention.using(self.attention):
            whole, alone = (self.encoder.apply(variables, x).condition for x in (maps, average))
        return whole, alone

    @partial(jax.jit, static_argnums=0)
    def _losses(self, video: "Noised", condition: Array) -> Array:
        with attention.using(self.attention):
            return self._loss(video, condition)

    def _loss(self, video: "Noised", condition: Float[Array, "b n d"]) -> Float[Array, "b draws"]:
        """Of stage 2, draw after draw, for all of them together would fill the memory; in a
        backward pass as well, so that each draw is computed anew there."""
        assert self.generator is not None

        @jax.checkpoint
        def loss(denoiser: Any, latents: Array, t: Array, target: Array, condition: Array) -> Array:
            assert self.generator is not None
            error = jnp.square(self.generator.denoise(denoiser, latents, t, condition) - target)
            return error.mean(tuple(range(1, error.ndim)))

        losses = []
        for draw in range(video.t.shape[1]):
            given = (x[:, draw] for x in (video.noisy, video.t, video.target))
            losses.append(loss(video.denoiser, *given, condition))
        return jnp.stack(losses, axis=-1)


def _departure(whole: Float[Array, "b n d"], alone: Float[Array, "1 n d"]) -> Float[Array, "b n d"]:
    """d / ⟨d, d⟩; nothing for a condition that is the average's."""
    away = whole - alone
    size = jnp.square(away).sum((1, 2), keepdims=True)
    return away / jnp.where(size > 0, size, 1)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("denoiser", "noisy", "target", "t"),
    meta_fields=(),
)
@dataclass(frozen=True, eq=False)
class Noised:
    """True clips with noise, and what the denoiser should make of them."""

    denoiser: Any
    noisy: Float[Array, "b draws l i j c"]
    target: Float[Array, "b draws l i j c"]
    t: Array


@partial(jax.jit, static_argnames=("generator", "draws"))
def _noised(
    encoding: Array, clip: Int[Array, " b"], seed: Array, *, generator: Generator, draws: int
) -> tuple[Array, Array, Array]:
    """A clip's time and noise depend on it and on the seed alone."""

    def of_clip(encoding: Array, clip: Array) -> tuple[Array, Array, Array]:
        def once(key: Array) -> tuple[Array, Array, Array]:
            draw_key, noise_key, time_key = jax.random.split(key, 3)
            clean = generator.draw(encoding[None], draw_key)
            noise, t = generator.noise(noise_key, clean), generator.times(time_key, 1)
            noisy = generator.add_noise(clean, noise=noise, t=t)
            return noisy[0], generator.target(clean, noise=noise, t=t)[0], t[0]

        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), clip), draws)
        return jax.vmap(once)(keys)

    return jax.vmap(of_clip)(encoding, clip)


def noised(
    generator: Generator,
    denoiser: Any,
    encoding: Float[Array, "b l i j e"],
    *,
    clip: Int[np.ndarray, " b"],
    seed: int,
    draws: int,
) -> Noised:
    """encoding: of true clips, as `Generator.encode` gives it. clip: the number of each."""
    noisy, target, t = _noised(
        encoding, jnp.asarray(clip), np.uint32(seed), generator=generator, draws=draws
    )
    return Noised(denoiser, noisy, target, t)


def beyond_mean(embeddings: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    """t − t̄, in float32."""
    return (embeddings - embeddings.mean(0)).astype(np.float32)
