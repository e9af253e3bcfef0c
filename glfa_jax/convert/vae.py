"""AutoencoderKL <-> diffusers' class of the same name."""

import re
from collections.abc import Mapping

import numpy as np

from glfa_jax.convert.mapping import POINTWISE2D, Table, renamed

TABLE = Table(
    transforms=((r"(^|\.)(conv_shortcut|quant_conv|post_quant_conv)\.weight$", POINTWISE2D),),
)

# Names of the attention's projections in files written by diffusers before 0.18.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def current_names(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors with outdated attention names replaced; the VAEs of 2023 have them."""

    def current(name: str) -> str:
        old = r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)"
        return re.sub(old, lambda match: _OLD[match[1]], name)

    return renamed(source, current)
