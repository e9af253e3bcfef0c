"""Trains the encoder for a new subject, behind the layer that was fitted to him.

The generator stays, so what it is given must stay in its language: for every clip, the encoder is
drawn to the condition tokens that the training subjects have of it, on average over those who saw
it, each through his own layer and the encoder as stage 2 left it.

A layer that was itself found by descending a gradient, such as GLFA's, is trained along. The others
stay: their solutions hold what a gradient would not keep, such as a rotation or every pixel's
amplitude.

The clips are few, so the last fifth is held out. Neighbouring windows share noise, so it is one
stretch. The loss there is measured now and then; training ends where it has not fallen for a while,
and what is kept is the encoder with the lowest, be it the one of stage 2. The layer has seen all of
the clips, before training and after, so the two can be compared.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from glfa_jax import config
from glfa_jax.alignments import Layer, layers_of, with_layer
from glfa_jax.alignments.descent import DescentAlignment
from glfa_jax.alignments.protocol import SHARED
from glfa_jax.convert.pretrained import Pretrained, in_memory
from glfa_jax.errors import InputError
from glfa_jax.ops import attention
from glfa_jax.stages.cotrain import computing, encoder_group
from glfa_jax.stages.fitting import Material
from glfa_jax.subject_alignment import encoder_for
from glfa_jax.training.early_stopping import Best, train_to_best
from glfa_jax.training.optim import OTHERWISE, Group, merge, split
from glfa_jax.training.processes import say
from glfa_jax.training.step import matmul_precision

HELD_OUT = 5  # one in so many clips
_PART = "encoder"  # what `encoder_group` calls the encoder


class EncoderFit(NamedTuple):
    """encoder: with the subject's layer in front. curve: step and held-out loss, as measured.
    kept: the step whose parameters these are; 0 where training helped nothing. spread: what the
    loss would be of the mean of the other clips' targets, whatever the maps."""

    encoder: Pretrained
    curve: list[tuple[int, float]]
    kept: int
    spread: float
    held_out: int  # clips
    layer_trained: bool

    @property
    def layer(self) -> Layer:
        return layers_of(self.encoder)[SHARED]

    @property
    def numbers(self) -> dict[str, float]:
        losses = dict(self.curve)
        found = {"tokens_before": losses[0], "tokens_after": losses[self.kept]}
        return found | {"tokens_spread": self.spread, "encoder_step": self.kept}

    @property
    def about(self) -> dict[str, Any]:
        """What config.json says of it besides the numbers."""
        held = {"curve": self.curve, "held_out_clips": self.held_out}
        return held | {"layer_trained": self.layer_trained}


def validate_clips(clips: int) -> None:
    """Raises InputError where there are too few to hold some out."""
    if clips < HELD_OUT:
        raise InputError(
            f"--minutes: they hold {clips} clips that training subjects saw as well, but to train "
            f"the encoder {HELD_OUT} are needed, as one in {HELD_OUT} is held out"
        )


def fit_encoder(settings: config.Config, name: str, material: Material, layer: Layer) -> EncoderFit:
    """Trains in memory, on one device; begun anew, it gives the same.

    name: of the stage, for what is said.
    """
    own, (_, clips) = settings.adapt.encoder, material.shared
    trains = isinstance(layer.method, DescentAlignment)
    held = len(clips) // HELD_OUT
    say(
        f"== {name}: the encoder{' and the layer' if trains else ''}, on {len(clips) - held} "
        f"clips, the last {held} held out"
    )
    start = with_layer(material.encoder, layer)
    module = computing(settings, start.module)
    groups = (encoder_group(but=() if trains else ("func_align",)), Group(OTHERWISE, None))
    parts = split({_PART: in_memory(start.variables["params"])}, groups=groups)
    frozen = jax.device_put(parts.frozen)
    size = min(own.batch_size, len(clips) - held)

    def loss(params: dict, frozen: dict, batch: tuple[Array, Array]) -> Array:
        maps, wanted = batch
        whole = merge(params, frozen)[_PART]
        return jnp.square(_condition(module, whole, maps) - wanted).mean()

    def held_out(params: dict) -> float:
        found = tokens(module, merge(params, frozen)[_PART], maps[-held:], size=size)
        return float(np.square(found - targets[-held:]).mean(dtype=np.float64))

    with matmul_precision(settings.hardware), attention.using(settings.hardware.attention):
        targets = targets_of(settings, material, size=size)
        maps = material.new.fmri("train", clips, subjects=[material.subject])[:, 0]
        maps = maps.astype(np.float32)
        order = _batches(len(clips) - held, size=size, seed=settings.seed)
        best = train_to_best(
            name,
            stage=own,
            every=own.measure_every,
            patience=own.patience,
            init=parts.trainable,
            frozen=frozen,
            groups=groups[:1],
            loss_fn=loss,
            batches=((maps[rows], targets[rows]) for rows in order),
            measure=held_out,
        )
    say(f"{name}: {_outcome(best)}")
    trained = Pretrained(start.module, {"params": merge(best.params, parts.frozen)[_PART]})
    constant = targets[:-held].mean(0)
    spread = float(np.square(targets[-held:] - constant).mean(dtype=np.float64))
    return EncoderFit(trained, best.curve, best.kept, spread, held, trains)


def targets_of(
    settings: config.Config, material: Material, *, size: int
) -> Float[np.ndarray, "n tokens d"]:
    """The training subjects' condition tokens of every clip, mean over those who saw it."""
    store, (clips, _), others = material.store, material.shared, settings.protocol.train_subjects
    present = store.present("train", subjects=others)[clips]
    module = computing(settings, material.encoder.module)
    total = np.zeros((len(clips), module.tokens, module.dim), np.float32)
    for other, seen in zip(others, present.T, strict=True):
        if seen.any():
            own = encoder_for(settings, material.encoder, subject=other)
            params = jax.device_put(in_memory(own.variables["params"]))
            maps = store.fmri("train", clips[seen], subjects=[other])[:, 0].astype(np.float32)
            total[seen] += tokens(computing(settings, own.module), params, maps, size=size)
    return total / present.sum(axis=1)[:, None, None]


def tokens(
    module: Any, params: dict, maps: Float[np.ndarray, "n w height width"], *, size: int
) -> Float[np.ndarray, "n tokens d"]:
    """The condition of every window, so many at a time that one program serves all."""
    module = module.clone(remat=False)  # nothing is kept for a gradient
    parts = (maps[first : first + size] for first in range(0, len(maps), size))
    found = [
        np.asarray(_encoded(module, params, np.resize(part, (size, *part.shape[1:]))))[: len(part)]
        for part in parts
    ]
    return np.concatenate(found)


def _condition(module: Any, params: dict, maps: Float[Array, "b w h w2"]) -> Array:
    return module.apply({"params": params}, maps).condition


_encoded = partial(jax.jit, static_argnums=0)(_condition)


def _batches(clips: int, *, size: int, seed: int) -> Iterator[Int[np.ndarray, " size"]]:
    """Endless; every clip once before one is seen again, but for those that fill no batch."""
    draw = np.random.default_rng(seed)
    while True:
        order = draw.permutation(clips)
        yield from np.split(order[: clips // size * size], clips // size)


def _outcome(best: Best) -> str:
    losses = dict(best.curve)
    if not best.kept:
        return (
            f"the held-out loss of {losses[0]:.4g} did not fall in {best.last} steps, the encoder "
            "stays as it was"
        )
    return (
        f"held-out loss {losses[0]:.4g}, {losses[best.kept]:.4g} at step {best.kept}, which is kept"
    )
