"""How alike the maps of different subjects are before and after alignment, and why."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import system
from glfa_jax.alignments import Layer, load_encoder
from glfa_jax.alignments.glfa import LOCAL, Glfa
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.data.correlation import RunningCorrelation
from glfa_jax.data.relief import relief_of
from glfa_jax.evaluation import displacement
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.files import savez_atomically
from glfa_jax.subject_alignment import layer_for

Pair = tuple[int, int]


def align_maps(test: HeldOut) -> None:
    """Writes alignment.npz: maps before and after alignment, and how alike subjects are.

    Inter-subject correlations (`Correlation`) over the test clips that all have: isc_before,
    isc_after, isc_one_kernel (after a layer whose local part is alike everywhere, the mean of the
    trained one's); correlation_before and correlation_after (h, w), at every pixel, mean over pairs
    with a subject that is decoded. undone: `displacement.undone` over these pairs, where known.

    Left out where they are not known: shifts and displacements (s, h, w, 2), rows and columns in
    pixels from where each subject's layer fetches a pixel's signal, and to where the canonical map
    holds its tuning; and what `relief_of` says of the map.
    """
    settings, store = test.settings, test.store
    path = system.results_folder(settings) / "alignment.npz"
    path.unlink(missing_ok=True)
    protocol = settings.protocol
    fitted = settings.evaluation.adapted_minutes is not None
    if not (settings.aligned or fitted) or protocol.test_store is not None:
        return  # nothing is aligned, or no stimulus in common
    subjects = list(dict.fromkeys((*protocol.train_subjects, *protocol.test_subjects)))
    present = store.present("test", subjects=subjects).all(1)
    clips = np.flatnonzero(present)[: settings.evaluation.clips]
    if not len(clips):
        return
    encoder = load_encoder(system.model_folder(settings, "cotrain") / "encoder")
    layers = [layer_for(settings, encoder, subject=subject) for subject in subjects]
    mask, middle = store.mask, settings.data.window // 2
    pairs = _with_any(protocol.test_subjects, subjects=subjects)
    uniform = [_uniform(layer, mask) for layer in layers]
    alike = [Correlation(len(subjects), mask) for _ in range(3)]
    shown = []
    for clip in clips:  # one at a time: all maps of a benchmark would fill the memory
        before = store.fmri("test", [clip], subjects=subjects)[0].astype(np.float32)
        after, otherwise = (
            np.stack([_through(*pair) for pair in zip(kind, before, strict=True)])
            for kind in (layers, uniform)
        )
        for correlation, maps in zip(alike, (before, after, otherwise), strict=True):
            correlation.add(maps)
        shown = shown or [maps[:, middle] for maps in (before, after)]
    isc_before, isc_after, isc_one_kernel = (correlation.mean() for correlation in alike)
    shifts = _of_all(one.method.shift(one.params, maps_shape=mask.shape) for one in layers)
    truth = _of_all(displacement.true_displacement(settings.data, subject=s) for s in subjects)
    undone = float("nan")
    if pairs and shifts is not None and truth is not None and shifts.any():
        undone = displacement.undone(shifts, truth, mask=mask, pairs=pairs)
    known = {"shifts": shifts, "displacements": truth}
    savez_atomically(
        path,
        mask=mask,
        subjects=subjects,
        before=shown[0],
        after=shown[1],
        isc_before=isc_before,
        isc_after=isc_after,
        isc_one_kernel=isc_one_kernel,
        correlation_before=alike[0].at_pixels(pairs),
        correlation_after=alike[1].at_pixels(pairs),
        undone=undone,
        **{key: x.astype(np.float32) for key, x in known.items() if x is not None},
        **relief_of(settings.data, mask=mask),
    )


def _with_any(decoded: Sequence[str], *, subjects: Sequence[str]) -> list[Pair]:
    """Pairs of places among the subjects, one of whom at least is decoded."""
    return [
        (i, j)
        for i, j in combinations(range(len(subjects)), 2)
        if subjects[i] in decoded or subjects[j] in decoded
    ]


def _of_all(found: Iterable[Float[ndarray, "h w 2"] | None]) -> Float[ndarray, "s h w 2"] | None:
    """None where one is not known: only differences between subjects say anything."""
    given = list(found)
    known = [one for one in given if one is not None]
    return np.stack(known) if len(known) == len(given) else None


def _through(layer: Layer, maps: Float[ndarray, "w h w2"]) -> Float[ndarray, "w h w2"]:
    return np.asarray(apply_layer(layer.method.layer(maps.shape[-2:]), layer.params, maps))


def _uniform(layer: Layer, mask: Bool[ndarray, "h w"]) -> Layer:
    """Of GLFA, with a local part that is alike everywhere; of others, as it is."""
    if LOCAL not in layer.params or not isinstance(layer.method, Glfa):
        return layer
    kernel = displacement.with_one_kernel(layer.params[LOCAL], mask)
    return layer._replace(params=layer.params | {LOCAL: kernel})


class Correlation:
    """Inter-subject correlation: over time at every cortex pixel, of each pair of subjects."""

    def __init__(self, subjects: int, mask: Bool[ndarray, "h w"]):
        self._mask = mask
        self._pairs = {
            pair: RunningCorrelation(int(mask.sum())) for pair in combinations(range(subjects), 2)
        }

    def add(self, maps: Float[ndarray, "s time h w"]) -> None:
        values = maps[..., self._mask]
        for (i, j), correlation in self._pairs.items():
            correlation.add(values[i], values[j])

    def mean(self) -> float:
        """Over pixels and pairs; not a number with one subject."""
        found = [np.nanmean(pair.result()) for pair in self._pairs.values()]
        return float(np.mean(found)) if found else float("nan")

    def at_pixels(self, pairs: Iterable[Pair]) -> Float[ndarray, "h w"]:
        """Mean over these pairs, of those in which the pixel varies; not a number where in none, as
        off the cortex."""
        values = np.array([self._pairs[pair].result() for pair in pairs])
        values = values.reshape(-1, int(self._mask.sum()))
        known = np.isfinite(values)
        found = np.full(self._mask.shape, np.nan, np.float32)
        with np.errstate(invalid="ignore"):
            found[self._mask] = np.where(known, values, 0).sum(0) / known.sum(0)
        return found
