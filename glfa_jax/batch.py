"""The data contract between `data.pipeline` and the training stages.

Every stage gets a `Batch` of numpy arrays. Letters: b rows, s subjects, v clips a row, w window,
f frames, n caption tokens, l frames of latents, e channels of the generator's encodings.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Batch(NamedTuple):
    """`b` rows, each with one window of each of the same `s` subjects.

    In a paired row all subjects saw the same clip: the pairing that the alignment loss needs. In
    the other rows window i of subject i is of clip i. v is 1 where every row is paired, else s; a
    paired row then holds its clip v times.

    fmri: z-scored BOLD per run, zero outside the cortex mask; the window's volumes in time order,
        shifted by the haemodynamic lag.
    video: RGB in [-1, 1]; no frames (f = 0) where `latents` stand for them.
    tokens: caption, tokenised and padded to the text encoder's length.
    clip: index of each clip in its split of the store.
    paired: whether the row's windows are all of one clip.
    latents: what the generator's `encode` makes of a clip; of a VAE, mean and then log-variance.
    """

    fmri: Float[Array, "b s w height width"]
    video: Float[Array, "b v f vheight vwidth 3"]
    tokens: Int[Array, "b v n"]
    clip: Int[Array, "b v"]
    paired: Bool[Array, " b"]
    latents: Float[Array, "b v l lheight lwidth e"] | None = None
