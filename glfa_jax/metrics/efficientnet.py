"""EfficientNet distance, the "Eff" of papers on fMRI-to-image decoding.

As published (Ozcelik & VanRullen 2023; MindEye, Scotti et al. 2023; a part of SEED, Park et al.
2026): features are the average pool of EfficientNet-B1, after its last convolution, norm and
activation and before its classifier, 1280 values; the distance is one less Pearson's r over these
values (scipy.spatial.distance.correlation). There it is of images; here of every generated frame
and the true one at its place. In the SEED paper it agreed with people far better than SSIM and CLIP
(Pearson r .75, .11 and .44).

Published numbers come from torchvision's weights (IMAGENET1K_V2) and its padding, on images whose
shortest edge is 255 pixels. Those of another EfficientNet, such as google/efficientnet-b1, are on
another scale: compare values of one model only.
"""

import numpy as np
from jaxtyping import Float

from glfa_jax.metrics import METRICS, Metric
from glfa_jax.metrics.embeddings import Embeddings, centred, check_pair, cosine


def correlation_distance(generated: Embeddings, *, truth: Embeddings) -> Float[np.ndarray, " b"]:
    """1 - Pearson's r of each generated frame's features and the true one's at its place, mean
    over frames: 0 for the same, 1 for what has nothing in common, 2 for the opposite.

    Features that are all alike correlate with nothing: 1.
    """
    check_pair(generated, truth)
    first, second = (centred(x.astype(np.float64)) for x in (generated, truth))
    return 1.0 - cosine(first, second).mean(axis=1)


METRICS.register(
    Metric(
        "EfficientNet distance",
        group="efficientnet",
        variant="1 - Pearson r of the foundation's EfficientNet, pooled",
        better="lower",
        needs="frame features",
        measure=correlation_distance,
    )
)
