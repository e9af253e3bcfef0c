"""Names of VideoMAEForVideoClassification as transformers stores it, for models.video_mae."""

import re
from collections.abc import Mapping

import numpy as np

from glfa_jax.convert.mapping import Table, renamed
from glfa_jax.convert.vit import LAYER_NAMES

TABLE = Table(
    rename=(
        *LAYER_NAMES,
        # These biases are stored beside the projections, not in them.
        (r"\.attention\.attention\.query\.bias$", ".attention.attention.q_bias"),
        (r"\.attention\.attention\.value\.bias$", ".attention.attention.v_bias"),
    ),
    # What is the same for all keys of a query cancels in the softmax: so does a bias of the keys.
    ignore=(r"\.attention\.attention\.key\.bias$",),
)


def current_names(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors with the biases as the table has them; some versions of transformers store
    them as those of the projections."""

    def current(name: str) -> str:
        return re.sub(
            r"(?<=\.attention\.attention\.)(query|value)\.bias$",
            lambda match: f"{match[1][0]}_bias",
            name,
        )

    return renamed(source, current)
