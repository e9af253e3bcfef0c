"""Names of UMT5EncoderModel as transformers stores it, for models.umt5."""

from collections.abc import Mapping

import numpy as np

from glfa_jax.convert.mapping import Table, renamed

_SHARED, _AGAIN = "shared.weight", "encoder.embed_tokens.weight"

# The encoder's own name for the embeddings, under which some files hold them a second time.
TABLE = Table(ignore=(r"^encoder\.embed_tokens\.weight$",))


def current_names(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors, the embeddings under the name that they are written by."""
    return renamed(source, lambda name: _SHARED if name == _AGAIN else name)
