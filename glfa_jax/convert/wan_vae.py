"""AutoencoderKLWan <-> diffusers' class of the same name."""

from glfa_jax.convert.mapping import CHANNELS2D, CHANNELS3D, POINTWISE2D, POINTWISE3D, Table

TABLE = Table(
    transforms=(
        (r"(^|\.)(to_qkv|proj)\.weight$", POINTWISE2D),
        (r"(^|\.)(conv_shortcut|quant_conv|post_quant_conv)\.weight$", POINTWISE3D),
        # Of attention; those of residual blocks and heads have other names.
        (r"(^|\.)norm\.gamma$", CHANNELS2D),
        (r"\.gamma$", CHANNELS3D),
    ),
)
