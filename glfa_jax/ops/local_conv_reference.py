"""The local layer as one call of lax: what it computes, in the plainest words, and slow."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def kernels(theta: Float[Array, "k h w"]) -> Float[Array, "k h w"]:
    """The weights of every pixel's neighbourhood, row by row; they add up to 1 (SPEC §2.2)."""
    a = jnp.asarray(theta).at[len(theta) // 2].add(1.0)
    weights = a * jnp.sign(a)  # |a|, with slope 0 at 0 as in PyTorch; that of jnp.abs there is 1
    return weights / weights.sum(0)


def local_conv(
    x: Float[Array, "n h w"], theta: Float[Array, "k h w"], *, kernel_size: int
) -> Float[Array, "n h w"]:
    """SPEC §2.2, formula by formula; JAX derives the gradients."""
    y = lax.conv_general_dilated_local(
        x[..., None],
        jnp.moveaxis(kernels(theta), 0, -1)[..., None].astype(x.dtype),
        window_strides=(1, 1),
        padding=[(kernel_size // 2, kernel_size // 2)] * 2,
        filter_shape=(kernel_size, kernel_size),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return y[..., 0] * (x != 0)
