"""n-way top-k identification, exact and by Monte Carlo.

What fMRI-to-video papers call video-based and frame-based accuracy (MinD-Video, Chen et al. 2023;
GLFA, ECCV 2024), as their code computes it: 2-way and 50-way, top 1, by 100 trials a clip.

video-based   one judgement a clip, by a classifier of videos (VideoMAE, 400 classes of Kinetics).
frame-based   one a frame, by a classifier of images (ViT, 1000 classes of ImageNet): the generated
              frame against the true one at its place; the clip's value is the mean over frames.

A classifier scores the true clip and the generated one. The labels are its top classes on the true
clip (three in the literature). A trial draws n − 1 other classes without replacement and succeeds
if any label ranks among the top k of itself and the draw, by the scores of the generated clip. That
is so exactly when fewer than k of the drawn classes outrank the best label, and the number drawn of
those is hypergeometric: the success probability has a closed form.

Ties are broken at random, in the closed form as in the trials. So scores that are all equal earn
what random scores earn, `chance`, and a ranking without ties earns what it always did.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import hypergeom

from glfa_jax.metrics import METRICS, Metric
from glfa_jax.metrics.mismatch import with_all


def top_classes(
    probabilities: Float[np.ndarray, "b k"], *, count: int = 3
) -> Int[np.ndarray, "b count"]:
    """The `count` highest-scoring classes of each clip, best first; of equals, the lower index."""
    _check_scores(probabilities)
    if not 1 <= count <= probabilities.shape[1]:
        raise ValueError(f"top classes: {count} of {probabilities.shape[1]} cannot be taken")
    # As float, for the negative of an unsigned number is a large one.
    return np.argsort(-probabilities.astype(np.float64), axis=1, kind="stable")[:, :count]


def nway_exact(
    probabilities: Float[np.ndarray, "b k"],
    *,
    labels: Int[np.ndarray, "b m"],
    n: int,
    top_k: int = 1,
) -> Float[np.ndarray, " b"]:
    """Success probability of each clip.

    `probabilities`: the classifier's scores on the generated clips, any monotone scale.
    `labels`: the classes that count as right, from `top_classes` of the true clips.
    """
    best, others = _split(probabilities, labels, n=n, top_k=top_k)
    pool = others.shape[1]
    # success[j]: j classes of the pool outrank the best label
    success = hypergeom.cdf(top_k - 1, pool, np.arange(pool + 1), n - 1)
    above = (others > best[:, None]).sum(axis=1)
    out = success[above]
    tied = (others == best[:, None]).sum(axis=1)
    for clip in np.flatnonzero(tied):
        level = (probabilities[clip, labels[clip]] == best[clip]).sum()
        before = np.arange(tied[clip] + 1)
        # How many tied competitors precede the first of `level` tied labels in a random order:
        # one more, as long as the next of those that are left is no label.
        left = level + tied[clip] - before
        precede = np.cumprod([1.0, *((left - level) / left)[:-1]])
        out[clip] = min(precede * level / left @ success[above[clip] + before], 1.0)
    return out


def nway_monte_carlo(
    probabilities: Float[np.ndarray, "b k"],
    *,
    labels: Int[np.ndarray, "b m"],
    n: int,
    top_k: int = 1,
    trials: int,
    seed: int,
) -> Float[np.ndarray, " b"]:
    """Share of successful trials of each clip: what published numbers are (with 100 trials)."""
    if trials < 1:
        raise ValueError(f"n-way: trials must be positive, is {trials}")
    best, others = _split(probabilities, labels, n=n, top_k=top_k)
    rng = np.random.default_rng(seed)
    out = np.empty(len(best))
    for clip, scores in enumerate(others):
        level = (probabilities[clip, labels[clip]] == best[clip]).sum()
        draw = np.argsort(rng.random((trials, len(scores))), axis=1)[:, : n - 1]
        # A random order among equals: one more number each, the best label's the highest of its.
        label_order = rng.random((trials, level)).max(axis=1, keepdims=True)
        order = rng.random(draw.shape)
        drawn = scores[draw]
        outranks = (drawn > best[clip]) | ((drawn == best[clip]) & (order > label_order))
        out[clip] = (outranks.sum(axis=1) < top_k).mean()
    return out


def chance(classes: int, *, labels: int = 3, n: int, top_k: int = 1) -> float:
    """Expected success of scores that know nothing: 3/4 for 2-way top-1 with three labels."""
    blank = np.zeros((1, classes))
    return float(nway_exact(blank, labels=np.arange(labels)[None], n=n, top_k=top_k)[0])


def _split(
    probabilities: np.ndarray, labels: np.ndarray, *, n: int, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best label's score (b,) and the scores of all other classes (b, k − m)."""
    _check_scores(probabilities)
    b, k = probabilities.shape
    if labels.ndim != 2 or len(labels) != b:
        raise ValueError(f"n-way: labels have shape {labels.shape}, must be ({b}, labels per clip)")
    m = labels.shape[1]
    if m < 1 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"n-way: labels must be class indices from 0 to {k - 1}")
    is_label = np.zeros((b, k), bool)
    np.put_along_axis(is_label, labels, True, axis=1)
    if (is_label.sum(axis=1) != m).any():
        raise ValueError("n-way: a clip names the same class twice among its labels")
    if not 2 <= n <= k - m + 1:
        raise ValueError(
            f"n-way: n = {n} must lie in 2 to {k - m + 1}: {k} classes less {m} labels leave "
            f"{k - m} to draw n - 1 from"
        )
    if not 1 <= top_k < n:
        raise ValueError(f"n-way: top_k = {top_k} must lie in 1 to n - 1 = {n - 1}")
    best = np.where(is_label, probabilities, -np.inf).max(axis=1)
    return best, probabilities[~is_label].reshape(b, k - m)


def _check_scores(probabilities: np.ndarray) -> None:
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(
            f"class scores: shape {probabilities.shape} must be (clips, classes), at least one clip"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("class scores: not all are finite")


# As metrics: probabilities (clips, classes) or (clips, frames, classes), labels likewise.


def _labels(probabilities: np.ndarray) -> np.ndarray:
    labels = top_classes(_flat(probabilities))
    return labels.reshape(*probabilities.shape[:-1], -1)


def _accuracy(probabilities: np.ndarray, *, truth: np.ndarray, ways: int) -> np.ndarray:
    values = nway_exact(_flat(probabilities), labels=_flat(truth), n=ways)
    return _over_frames(values, len(probabilities))


def _drawn(
    probabilities: np.ndarray, *, truth: np.ndarray, ways: int, trials: int, seed: int
) -> np.ndarray:
    values = nway_monte_carlo(
        _flat(probabilities), labels=_flat(truth), n=ways, trials=trials, seed=seed
    )
    return _over_frames(values, len(probabilities))


def _chance(probabilities: np.ndarray, *, ways: int) -> float:
    return chance(probabilities.shape[-1], n=ways)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _over_frames(values: np.ndarray, clips: int) -> np.ndarray:
    return values.reshape(clips, -1).mean(1)


for _kind, _needs in (("video", "clip probabilities"), ("frame", "frame probabilities")):
    METRICS.register(
        Metric(
            f"{_kind} {{ways}}-way",
            group=None,
            variant="exact",
            better="higher",
            needs=_needs,
            measure=_accuracy,
            of_truth=_labels,
            chance=_chance,
            mismatched=with_all,
            drawn=_drawn,
            options=("ways",),
        )
    )
