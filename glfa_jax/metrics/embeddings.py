"""Similarities of CLIP image embeddings of frames; each function gives one value a clip.

Embeddings are those of CLIP's projection, not normalised. A zero vector resembles nothing: 0.
Published names and what they are, by the papers' texts and code:

CLIP-pcc          cosine of adjacent frames, mean over pairs: `consistency` with "cosine".
                  NeuroClips (Gong et al. 2024). "pcc" notwithstanding, nothing is centred;
                  "pearson" does what the name says.
CLIP-pcc, gated   the same, but 0 for a clip whose VIFI score is 0.6 or less: `gated_consistency`.
                  Mind-Animator (Lu et al. 2025), CLIP ViT-B/32. NeuroClips' table quotes its
                  baselines from there, so it holds both kinds.
VIFI score        cosine of the clips' mean embeddings, by ViFi-CLIP (Rasheed et al. 2023), a
                  ViT-B/16 tuned on Kinetics-400: `video_similarity`.

With another CLIP the values are of that CLIP's scale and so is a threshold: 0.6 separates scores of
ViFi-CLIP, and frames of any kind may be more alike than that to a CLIP as it was trained.
"""

from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

from glfa_jax.metrics import METRICS, Metric

Embeddings = Float[np.ndarray, "b f d"]
Measure = Literal["cosine", "pearson"]


def clip_similarity(generated: Embeddings, *, truth: Embeddings) -> Float[np.ndarray, " b"]:
    """Cosine of each generated frame and the true frame at its place, mean over frames."""
    check_pair(generated, truth)
    return cosine(generated, truth).mean(axis=1)


def consistency(embeddings: Embeddings, *, measure: Measure) -> Float[np.ndarray, " b"]:
    """CLIP-pcc, ungated: similarity of adjacent frames, mean over pairs.

    "cosine": of the embeddings, as published; "pearson": centred over the embedding's values.
    It asks nothing of the content: a still image is perfectly consistent.
    """
    _check(embeddings)
    if embeddings.shape[1] < 2:
        raise ValueError("consistency: clips of one frame have no adjacent frames, 2 are needed")
    x = embeddings.astype(np.float64)
    if measure == "pearson":
        x = centred(x)
    elif measure != "cosine":
        raise ValueError(f'consistency: measure {measure!r} must be "cosine" or "pearson"')
    return cosine(x[:, :-1], x[:, 1:]).mean(axis=1)


def gated_consistency(
    embeddings: Embeddings,
    *,
    measure: Measure,
    similarity: Float[np.ndarray, " b"],
    threshold: float,
) -> Float[np.ndarray, " b"]:
    """CLIP-pcc, gated: `consistency` of clips whose similarity to their truth exceeds the
    threshold, 0 for all others.

    `similarity`: the VIFI score (`video_similarity`). Published: threshold 0.6 with "cosine".
    """
    values = consistency(embeddings, measure=measure)
    if similarity.shape != values.shape:
        raise ValueError(
            f"gated consistency: similarities of shape {similarity.shape} must be one for each of "
            f"{len(values)} clips"
        )
    if not (np.isfinite(similarity).all() and np.isfinite(threshold)):
        raise ValueError("gated consistency: similarities and threshold must be finite")
    return np.where(similarity > threshold, values, 0.0)


def video_similarity(generated: Embeddings, *, truth: Embeddings) -> Float[np.ndarray, " b"]:
    """VIFI-style: cosine of the generated and the true clip's embeddings averaged over frames.

    Pooled as ViFi-CLIP pools: the mean of frames as they are, normalised only afterwards. The
    number of frames may differ.
    """
    check_pair(generated, truth, same_frames=False)
    return cosine(*(x.astype(np.float64).mean(axis=1) for x in (generated, truth)))


def _consistency(embeddings: Embeddings, *, truth: Embeddings) -> Float[np.ndarray, " b"]:
    return consistency(embeddings, measure="cosine")


def _gated(
    embeddings: Embeddings, *, truth: Embeddings, consistency_gate: float
) -> Float[np.ndarray, " b"]:
    similarity = video_similarity(embeddings, truth=truth)
    return gated_consistency(
        embeddings, measure="cosine", similarity=similarity, threshold=consistency_gate
    )


_of_frames = partial(Metric, group="embeddings", better="higher", needs="frame embeddings")
METRICS.register(_of_frames("CLIP similarity", variant="cosine", measure=clip_similarity))
METRICS.register(
    _of_frames(
        "VIFI similarity",
        variant="the foundation's CLIP",
        measure=video_similarity,
        same_shape=False,
    )
)
METRICS.register(
    _of_frames(
        "CLIP-pcc",
        variant="cosine, ungated",
        measure=_consistency,
        same_shape=False,
        mismatched=None,
    )
)
METRICS.register(
    _of_frames(
        "CLIP-pcc, gated",
        variant="cosine, 0 to VIFI similarity {consistency_gate:g}",
        measure=_gated,
        same_shape=False,
        mismatched=None,
        options=("consistency_gate",),
    )
)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over the last axis; 0 where one is a zero vector."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(axis=-1), norms, out=np.zeros_like(norms), where=norms > 0)


def centred(x: np.ndarray) -> np.ndarray:
    """Without their mean; values that are all alike leave nothing, not what rounding leaves."""
    rest = x - x.mean(axis=-1, keepdims=True)
    lengths, before = (np.linalg.norm(y, axis=-1, keepdims=True) for y in (rest, x))
    return np.where(lengths > 1e-12 * before, rest, 0.0)


def check_pair(generated: np.ndarray, truth: np.ndarray, *, same_frames: bool = True) -> None:
    """Rejects what are no embeddings of the same clips."""
    _check(generated)
    _check(truth)
    first, second = (
        x.shape if same_frames else (x.shape[0], x.shape[2]) for x in (generated, truth)
    )
    if first != second:
        raise ValueError(
            f"embeddings: generated {generated.shape} and true {truth.shape} must have the same "
            f"{'shape' if same_frames else 'number of clips and of values'}"
        )


def _check(embeddings: np.ndarray) -> None:
    if embeddings.ndim != 3 or 0 in embeddings.shape:
        raise ValueError(
            f"embeddings: shape {embeddings.shape} must be (clips, frames, values), none empty"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings: not all values are finite")
