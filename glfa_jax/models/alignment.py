"""GLFA: global-local functional alignment of fMRI maps (SPEC §2.2)."""

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


class Alignment(nn.Module):
    """Maps every subject's fMRI into the common space: a global map, then a local one.

    Zero pixels stay zero. At initialisation the layer is the identity up to 1e-4. One layer serves
    all subjects, which is what lets an unseen subject be decoded without fitting; or each has one.

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
