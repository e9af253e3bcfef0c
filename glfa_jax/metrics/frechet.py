"""Fréchet distance between two sets of features."""

import numpy as np
from jaxtyping import Float

from glfa_jax.metrics import METRICS, Metric


def frechet_distance(
    generated: Float[np.ndarray, "n d"], *, truth: Float[np.ndarray, "m d"]
) -> float:
    """FVD-style: of Gaussians with the sets' means and sample covariances (ddof 1), squared:

        |mean1 - mean2|² + tr(cov1 + cov2 - 2 (cov1 cov2)^½)

    (Dowson & Landau 1982), the form of FID (Heusel et al. 2017) and FVD (Unterthiner et al. 2018).
    FVD takes logits of I3D, trained on Kinetics-400, for clips of 224x224; with other features it
    is another scale, so the name of what is registered here says whose they are: VideoMAE's, the
    mean of its last tokens, normalised, which its classifier reads. I3D is distributed as
    TorchScript, a program, which is not run; FVD as published is not offered.

    Biased upwards, for the covariances are estimates: the bias falls as 1/n, is large with fewer
    than several times d samples, and with n <= d, where the covariance is singular, outweighs the
    rest. Compare only values from equally many samples.
    """
    for name, features in (("generated", generated), ("true", truth)):
        if features.ndim != 2 or features.shape[1] == 0:
            raise ValueError(
                f"Fréchet distance: {name} features of shape {features.shape} must be (samples, "
                "values), none empty"
            )
        if len(features) < 2:
            raise ValueError(
                f"Fréchet distance: {len(features)} {name} sample has no covariance; at least 2, "
                f"and to mean much several times {features.shape[1]}, are needed"
            )
        if not np.isfinite(features).all():
            raise ValueError(f"Fréchet distance: not all {name} features are finite")
    if generated.shape[1] != truth.shape[1]:
        raise ValueError(
            f"Fréchet distance: generated features of {generated.shape[1]} values and true ones of "
            f"{truth.shape[1]} must have equally many"
        )
    mean1, root1 = _moments(generated)
    mean2, root2 = _moments(truth)
    # tr (cov1 cov2)^½ is the sum of the roots of the eigenvalues of the symmetric matrix
    # (root1 root2ᵀ)(root1 root2ᵀ)ᵀ: of root1 root2ᵀ's singular values, without a root of anything
    # that is near 0.
    overlap = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    spread = (root1**2).sum() + (root2**2).sum()
    return float(max(((mean1 - mean2) ** 2).sum() + spread - 2 * overlap, 0.0))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a root with covariance = rootᵀ root."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    root = np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r")
    return mean, np.asarray(root)


METRICS.register(
    Metric(
        "Fréchet distance, VideoMAE",
        group="features",
        variant="features before its classifier, {clips} clips of {shown}, {values} values{few}",
        better="lower",
        needs="clip features",
        measure=frechet_distance,
        per_run=True,
    )
)
