"""How alike videos are that a decoder draws from the same maps with other noise."""

import numpy as np
from jaxtyping import Float, UInt8


def agreement(videos: UInt8[np.ndarray, "k clips f h w 3"]) -> Float[np.ndarray, " clips"]:
    """Mean over all pairs of k samples of the correlation of their pixels; NaN of one sample.

    1: the maps decide all of what is seen. About 0: the noise does. Of a sample in one colour
    throughout the correlation counts as 0.
    """
    count, clips = videos.shape[:2]
    if count < 2:
        return np.full(clips, np.nan)
    found = np.zeros(clips)
    for clip in range(clips):  # one at a time, as numbers in 64 bits take eight times the room
        flat = videos[:, clip].reshape(count, -1).astype(np.float64)
        flat -= flat.mean(axis=1, keepdims=True)
        sizes = np.linalg.norm(flat, axis=1, keepdims=True)
        flat = np.divide(flat, sizes, out=np.zeros_like(flat), where=sizes > 0)
        alike = flat @ flat.T
        found[clip] = (alike.sum() - np.trace(alike)) / (count * (count - 1))
    return found
