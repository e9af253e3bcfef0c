"""How alike the maps of different subjects are before and after alignment, and why."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config, system
from glfa_jax.alignments import Layer, load_encoder
from glfa_jax.alignments.glfa import LOCAL, Glfa
from glfa_jax.alignments.identity import Identity
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.data.correlation import RunningCorrelation
from glfa_jax.evaluation import displacement
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.files import savez_atomically
from glfa_jax.subject_alignment import layer_for


def align_maps(test: HeldOut) -> None:
    """Writes alignment.npz: maps before and after GLFA, and how alike subjects are.

    Inter-subject correlations (`Correlation`) over the test clips that all have: isc_before,
    isc_after, isc_one_kernel (after a layer whose local part is alike everywhere, the mean of the
    trained one's). undone: `displacement.undone`, where known.
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
    none = Layer(Identity(), {})
    layers = [layer_for(settings, encoder, subject=subject) or none for subject in subjects]
    mask, middle = store.mask, settings.data.window // 2
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
    savez_atomically(
        path,
        mask=mask,
        subjects=subjects,
        before=shown[0],
        after=shown[1],
        isc_before=isc_before,
        isc_after=isc_after,
        isc_one_kernel=isc_one_kernel,
        undone=_undone(settings, layers, subjects, mask),
    )


def _through(layer: Layer, maps: Float[ndarray, "w h w2"]) -> Float[ndarray, "w h w2"]:
    return np.asarray(apply_layer(layer.method.layer(maps.shape[-2:]), layer.params, maps))


def _uniform(layer: Layer, mask: Bool[ndarray, "h w"]) -> Layer:
    """Of GLFA, with a local part that is alike everywhere; of others, as it is."""
    if LOCAL not in layer.params or not isinstance(layer.method, Glfa):
        return layer
    kernel = displacement.with_one_kernel(layer.params[LOCAL], mask)
    return layer._replace(params=layer.params | {LOCAL: kernel})


def _undone(
    settings: config.Config, layers: list[Layer], subjects: list[str], mask: Bool[ndarray, "h w"]
) -> float:
    """Over pairs with a subject that is decoded; not a number where it is not known, or where a
    layer fetches no pixel's signal from one place."""
    decoded = settings.protocol.test_subjects
    pairs = [
        (i, j)
        for i, j in combinations(range(len(subjects)), 2)
        if subjects[i] in decoded or subjects[j] in decoded
    ]
    found = [displacement.true_displacement(settings.data, subject=name) for name in subjects]
    truth = [one for one in found if one is not None]
    if not pairs or len(truth) < len(subjects):
        return float("nan")
    shifts = [displacement.shift_of(layer, mask.shape) for layer in layers]
    known = [one for one in shifts if one is not None]
    if len(known) < len(subjects) or not any(one.any() for one in known):
        return float("nan")
    return displacement.undone(np.stack(known), np.stack(truth), mask=mask, pairs=pairs)


class Correlation:
    """Inter-subject correlation: over time at every cortex pixel, mean over pixels and pairs.

    Not a number with one subject.
    """

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
        found = [np.nanmean(pair.result()) for pair in self._pairs.values()]
        return float(np.mean(found)) if found else float("nan")
