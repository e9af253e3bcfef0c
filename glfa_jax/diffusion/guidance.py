"""Classifier-free guidance."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from glfa_jax.diffusion.steps import Denoiser

ConditionedDenoiser = Callable[
    [Float[Array, "b ..."], Num[Array, ""], Float[Array, "b n d"]], Float[Array, "b ..."]
]


def guided(
    denoise: ConditionedDenoiser,
    *,
    condition: Float[Array, "b n d"],
    negative: Float[Array, "#b n d"],
    scale: float | Float[Array, ""],
) -> Denoiser:
    """A denoiser for `sample` that pushes away from `negative`: ε = ε(neg) + g·(ε(cond) − ε(neg)).

    In this system the negative is the encoding of the average fMRI of the *training* set ("fMRI
    adversarial guidance", SPEC §4); one of batch size 1 serves every clip. Each step is one call of
    `denoise(x_t, t, condition)` on a doubled batch. `scale` (g) may be traced: changing it compiles
    nothing anew; 1 gives the plain conditional prediction.
    """
    if negative.shape[1:] != condition.shape[1:] or negative.shape[0] not in (1, len(condition)):
        raise ValueError(
            f"guidance: the negative condition has shape {negative.shape}, must have "
            f"{condition.shape} or batch size 1"
        )
    both = jnp.concatenate([jnp.broadcast_to(negative, condition.shape), condition])

    def denoise_guided(x: Float[Array, "b ..."], t: Num[Array, ""]) -> Float[Array, "b ..."]:
        prediction = denoise(jnp.concatenate([x, x]), t, both).astype(jnp.float32)
        away, towards = jnp.split(prediction, 2)
        return away + scale * (towards - away)

    return denoise_guided
