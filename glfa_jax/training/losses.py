"""The losses of the three stages (SPEC §2.1, §3)."""

from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def reconstruction_loss(
    image: Float[Array, "*b h w"],
    target: Float[Array, "*b h w"],
    mask: Float[Array, "h w"] | Float[Array, "*b h w"] | None = None,
) -> Float[Array, " *b"]:
    """Mean squared error of each map, over the pixels where the mask is 1 when one is given."""
    error = jnp.square(image - target)
    if mask is None:
        return error.mean((-2, -1))
    return _masked_mean(error, mask)


def _masked_mean(x: Float[Array, "*b h w"], mask: Array) -> Float[Array, " *b"]:
    mask = jnp.broadcast_to(mask, x.shape).astype(x.dtype)
    return (x * mask).sum((-2, -1)) / jnp.maximum(mask.sum((-2, -1)), 1.0)


class ContrastiveLoss(NamedTuple):
    image: Float[Array, ""]
    text: Float[Array, ""]
    total: Float[Array, ""]


def _info_nce(a: Float[Array, "b d"], b: Float[Array, "b d"], scale: Float[Array, ""]):
    logits = scale * a @ b.T
    rows = jax.nn.log_softmax(logits, axis=1)
    columns = jax.nn.log_softmax(logits, axis=0)
    return -(jnp.diagonal(rows).mean() + jnp.diagonal(columns).mean()) / 2


def contrastive_loss(
    fmri: Float[Array, "b d"],
    *,
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
) -> ContrastiveLoss:
    """Symmetric InfoNCE against images and texts, half each; embeddings of unit length.

    `logit_scale` is the logarithm of the factor on the cosines.
    """
    scale = jnp.exp(logit_scale)
    image_loss, text_loss = _info_nce(fmri, image, scale), _info_nce(fmri, text, scale)
    return ContrastiveLoss(image_loss, text_loss, (image_loss + text_loss) / 2)


def caption_weights(tokens: Int[Array, "*b n"], *, end: int) -> Float[Array, "*b n"]:
    """How much each token of a padded caption counts: 1 up to its end, all the padding together 1.

    end: the number of the end of text, which every caption has, and which may pad it as well.
    """
    behind = jnp.arange(tokens.shape[-1]) > (tokens == end).argmax(-1, keepdims=True)
    return jnp.where(behind, 1 / jnp.maximum(behind.sum(-1, keepdims=True), 1), 1.0)


def token_loss(
    condition: Float[Array, "b s n d"],
    *,
    tokens: Float[Array, "b v n d"],
    weights: Float[Array, "b v n"],
) -> Float[Array, ""]:
    """Squared distance of conditions from their captions' tokens, over the tokens' variance.

    `v` is 1, or s where every subject's window has a caption of its own; `weights` as of
    `caption_weights`. The variance is that of a token over the batch, so 1 is what the average
    caption would reach.
    Not part of the paper: it brings the condition to where the generator already understands it.
    """

    def total(x: Float[Array, "b s n d"]) -> Float[Array, ""]:
        return (weights * jnp.square(x).sum(-1)).sum(-1).mean()

    return total(condition - tokens) / total(tokens - tokens.mean((0, 1)))


class AlignmentLoss(NamedTuple):
    regularisation: Float[Array, ""]
    alignment: Float[Array, ""]


def alignment_loss(
    original: Float[Array, "b s w h x"],
    aligned: Float[Array, "b s w h x"],
    mask: Float[Array, "h x"],
    *,
    paired: Bool[Array, " b"] | None = None,
) -> AlignmentLoss:
    """Keeps aligned maps near the originals, and near each other across subjects.

    Both are means over cortex pixels: the first over subjects, the second over pairs of subjects
    (zero with one subject), in the rows where `paired` says that they saw the same clip (in all
    when left out; zero when in none).
    """
    regularisation = _masked_mean(jnp.square(aligned - original), mask).mean()
    pairs = list(combinations(range(aligned.shape[1]), 2))
    if not pairs:
        return AlignmentLoss(regularisation, jnp.zeros_like(regularisation))
    between = [
        _mean_of_rows(_masked_mean(jnp.square(aligned[:, i] - aligned[:, j]), mask), paired)
        for i, j in pairs
    ]
    total = sum(between, start=jnp.zeros_like(regularisation))
    return AlignmentLoss(regularisation, total / len(pairs))


def _mean_of_rows(x: Float[Array, "b w"], rows: Bool[Array, " b"] | None) -> Float[Array, ""]:
    if rows is None:
        return x.mean()
    return jnp.where(rows, x.mean(1), 0).sum() / jnp.maximum(rows.sum(), 1)
