"""The layer of GLFA, global-local functional alignment, under its official names (SPEC §2.2).

How it is fitted, stored and chosen is in `alignments.glfa`. It lies here, below, because official
checkpoints of the encoder hold it.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from glfa_jax.ops.local_conv import Box, local_conv


def to_patches(x: Float[Array, "*b h w"], patch: int) -> Float[Array, "*b n p"]:
    """Cuts maps into square patches, patches and the pixels in them both row-major."""
    *batch, height, width = x.shape
    rows, columns = height // patch, width // patch
    x = x.reshape(*batch, rows, patch, columns, patch)
    return jnp.moveaxis(x, -3, -2).reshape(*batch, rows * columns, patch * patch)


def from_patches(
    patches: Float[Array, "*b n p"], height: int, width: int, patch: int
) -> Float[Array, "*b h w"]:
    """Inverse of `to_patches`."""
    batch = patches.shape[:-2]
    rows, columns = height // patch, width // patch
    x = patches.reshape(*batch, rows, columns, patch, patch)
    return jnp.moveaxis(x, -2, -3).reshape(*batch, height, width)


class GlfaLayer(nn.Module):
    """Maps (..., height, width) of one subject, z-scores, into the common space.

    Global: of the n patches X of P x P pixels, X' = (I + G) X, G (n, n). Local: at every pixel p a
    convex combination of its K x K neighbourhood, y_p = sum_k |A_pk| x'_(p+k) / sum_k |A_pk| with
    A_p = identity kernel + theta_p, theta (K * K, height, width), zero beyond the border. After
    each part, pixels that were zero are zero again. Source: the supplement of GLFA (ECCV 2024).

    At initialisation the parameters are near those of the identity, G ~ N(0, (1e-4 / P)^2) and
    theta ~ N(0, (1e-4 / K)^2), but the map is only as near as `change_at_start` says: K * K
    absolute values add up, so that with K = 13 white noise of unit variance moves by up to 5e-3.

    patch_size, kernel_size: P and K, pixels. global_part, local_part: whether there is G, theta.
    box: where maps may differ from zero, if known: the local part then computes only there.
    """

    height: int
    width: int
    patch_size: int = 16
    kernel_size: int = 13
    global_part: bool = True
    local_part: bool = True
    box: Box | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        if self.global_part:
            patches = to_patches(x, self.patch_size)
            n = patches.shape[-2]
            mixing = self.param(
                "global_align_weight", nn.initializers.normal(1e-4 / self.patch_size), (n, n)
            )
            mixed = patches + jnp.einsum("ij,...jp->...ip", mixing, patches)
            x = from_patches(mixed, self.height, self.width, self.patch_size) * (x != 0)
        if self.local_part:
            theta = self.param(
                "weight",
                nn.initializers.normal(1e-4 / self.kernel_size),
                (self.kernel_size**2, self.height, self.width),
            )
            x = local_conv(x, theta, kernel_size=self.kernel_size, box=self.box)
        return x

    @nn.nowrap
    def change_at_start(self, largest: float) -> float:
        """What no pixel changes by at initialisation, for maps of values up to +-`largest`.

        Local part: y_p - x_p = sum_k |theta_pk| (x_(p+k) - x_p) / sum_k |A_pk|, at most
        2 * largest * sum_k |theta_pk|. With |theta| half-normal that sum has the mean
        sqrt(2 / pi) * 1e-4 * (K - 1 / K) < 8e-5 * K and a standard deviation below 6.1e-5.
        Global part: the standard deviation of sum_j G_ij x_j is at most 1e-4 * sqrt(n) / P times
        `largest`. Six standard deviations are allowed for: that one of 65,536 pixels changes by
        more has a probability below 1 %.
        """
        found = 0.0
        if self.local_part:
            found += 2 * largest * (8e-5 * self.kernel_size + 6 * 6.1e-5)
        if self.global_part:
            patches = self.height * self.width / self.patch_size**2
            found += largest * 6 * 1e-4 * patches**0.5 / self.patch_size
        return found
