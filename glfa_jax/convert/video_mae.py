"""Names of VideoMAEForVideoClassification as transformers stores it, for models.video_mae."""

from glfa_jax.convert.mapping import Table
from glfa_jax.convert.vit import LAYER_NAMES

TABLE = Table(
    rename=(
        *LAYER_NAMES,
        # These biases are stored beside the projections, not in them.
        (r"\.attention\.attention\.query\.bias$", ".attention.attention.q_bias"),
        (r"\.attention\.attention\.value\.bias$", ".attention.attention.v_bias"),
    )
)
