"""The data contract between `data.pipeline` and the training stages.

Every stage gets a `Batch` of numpy arrays. Letters: b clips, s subjects, w window, f frames,
n caption tokens.
"""

from typing import NamedTuple

from jaxtyping import Array, Float, Int


class Batch(NamedTuple):
    """`b` clips, each seen by the same `s` subjects: the pairing that the alignment loss needs.

    fmri: z-scored BOLD per run, zero outside the cortex mask; the window's volumes in time order,
        shifted by the haemodynamic lag.
    video: RGB in [-1, 1].
    tokens: caption, tokenised and padded to the text encoder's length.
    clip: index of each clip in its split of the store.
    """

    fmri: Float[Array, "b s w height width"]
    video: Float[Array, "b f vheight vwidth 3"]
    tokens: Int[Array, "b n"]
    clip: Int[Array, " b"]
