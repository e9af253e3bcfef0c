"""How well generated frames suit the caption of the true clip, in CLIP's joint space.

Not the "Cap-Sim" of SEED (Park et al. 2026), which captions both images by GIT (git-large-coco) and
takes the cosine of the two captions' sentence embeddings (all-MiniLM-L6-v2): here nothing is
captioned, the true caption is the study's own, and the frames are compared with it themselves, as
CLIPScore does (Hessel et al. 2021), which multiplies the cosine by 2.5 and cuts it at 0. A caption
and an image that belong together have a cosine of about 0.3, not 1.
"""

import numpy as np
from jaxtyping import Float

from glfa_jax.metrics import METRICS, Metric
from glfa_jax.metrics.embeddings import Embeddings, cosine


def caption_similarity(
    generated: Embeddings, *, truth: Float[np.ndarray, "b d"]
) -> Float[np.ndarray, " b"]:
    """Cosine of each generated frame's embedding and that of the clip's caption, `truth`; mean over
    frames.

    Raises ValueError where clips or values are not as many, or not finite.
    """
    if generated.ndim != 3 or truth.shape != (generated.shape[0], generated.shape[2]):
        raise ValueError(
            f"caption similarity: frames {generated.shape} must be (clips, frames, values), and "
            f"captions {truth.shape} (clips, values) of the same"
        )
    if not (np.isfinite(generated).all() and np.isfinite(truth).all()):
        raise ValueError("caption similarity: not all values are finite")
    return cosine(generated, truth[:, None]).mean(axis=1)


METRICS.register(
    Metric(
        "CLIP caption similarity",
        group="captions",
        variant="cosine of frames and the true caption",
        better="higher",
        needs="frame embeddings",
        truth_needs="caption embeddings",
        measure=caption_similarity,
        same_shape=False,
    )
)
