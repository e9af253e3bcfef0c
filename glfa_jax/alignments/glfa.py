"""GLFA, global-local functional alignment (SPEC §2.2): trained by stage 2, or fitted later."""

from dataclasses import dataclass
from typing import Any

from glfa_jax.alignments.descent import DescentAlignment
from glfa_jax.alignments.registry import register
from glfa_jax.alignments.taps import mean_shift
from glfa_jax.convert import glfa as names
from glfa_jax.convert.pretrained import own_config
from glfa_jax.errors import InputError
from glfa_jax.models.glfa import GlfaLayer
from glfa_jax.training.losses import reconstruction_loss

LOCAL = "weight"  # the local part among the layer's parameters


@register("glfa")
@dataclass(frozen=True)
class Glfa(DescentAlignment):
    """A global and a local linear map of every flat map; the formula is that of `GlfaLayer`.

    One layer may serve all subjects, which is what lets an unseen one be decoded without fitting;
    or each has one. patch_size, kernel_size: pixels. Source: the supplement of GLFA (ECCV 2024).
    """

    patch_size: int = 16
    kernel_size: int = 13
    global_part: bool = True
    local_part: bool = True

    trainable = True
    table = names.ALIGNMENT

    @classmethod
    def from_settings(cls, settings):
        own = settings.alignment
        if own.options:
            raise InputError(
                "alignment.options: must be left out with alignment.method glfa, whose options are "
                "global_part, local_part and kernel_size beside it"
            )
        return cls(settings.encoder.patch_size, own.kernel_size, own.global_part, own.local_part)

    def layer(self, maps_shape, *, box=None):
        return GlfaLayer(
            *maps_shape,
            self.patch_size,
            self.kernel_size,
            self.global_part,
            self.local_part,
            box,
        )

    def loss(self, layer, params, *, maps, targets, mask, settings):
        """a * MSE(aligned, targets) + r * MSE(aligned, maps) over the cortex, the mean over maps.

        a, r: `alignment_scale` and `regularisation_scale` of the settings (Eq. 7 without the
        generator's part).
        """
        aligned: Any = layer.apply({"params": params}, maps)
        parts = {
            "alignment": reconstruction_loss(aligned, targets, mask).mean(),
            "regularisation": reconstruction_loss(aligned, maps, mask).mean(),
        }
        loss = (
            settings.alignment_scale * parts["alignment"]
            + settings.regularisation_scale * parts["regularisation"]
        )
        return loss, parts

    def shift(self, params, *, maps_shape):
        """Of the local part; the global one mixes places from everywhere."""
        return mean_shift(params[LOCAL]) if LOCAL in params else None

    def describe(self, maps_shape):
        """As it always was written, without the method's name."""
        return own_config(self.layer(maps_shape))
