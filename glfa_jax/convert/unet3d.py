"""UNet3D <-> diffusers' UNet3DConditionModel."""

from glfa_jax.convert.mapping import POINTWISE2D, TEMPORAL, Table

TABLE = Table(
    transforms=(
        (r"\.temp_convs\.\d+\.conv\d\.[23]\.weight$", TEMPORAL),
        (r"\.conv_shortcut\.weight$", POINTWISE2D),
    ),
)
