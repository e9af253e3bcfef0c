"""How alike the maps of different subjects are before and after alignment, and why."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config, system
from glfa_jax.alignments import load_encoder
from glfa_jax.alignments.glfa import LOCAL
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
    if not settings.aligned or protocol.test_store is not None:  # no stimulus in common
        return
    subjects = list(dict.fromkeys((*protocol.train_subjects, *protocol.test_subjects)))
    present = store.present("test", subjects=subjects).all(1)
    clips = np.flatnonzero(present)[: settings.evaluation.clips]
    if not len(clips):
        return
    encoder = load_encoder(system.model_folder(settings, "cotrain") / "encoder")
    module = encoder.module.layer()
    layers = [layer_for(settings, encoder, subject=subject) for subject in subjects]
    local = settings.alignment.method == "glfa" and settings.alignment.local_part
    uniform = [_uniform(layer, store.mask) if local else layer for layer in layers]
    mask, middle = store.mask, settings.data.window // 2
    alike = [Correlation(len(subjects), mask) for _ in range(3)]
    shown = []
    for clip in clips:  # one at a time: all maps of a benchmark would fill the memory
        before = store.fmri("test", [clip], subjects=subjects)[0].astype(np.float32)
        after, otherwise = (
            np.stack([apply_layer(module, *pair) for pair in zip(kind, before, strict=True)])
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
        undone=_undone(settings, layers, subjects, mask) if local else float("nan"),
    )


def _uniform(layer: dict, mask: Bool[ndarray, "h w"]) -> dict:
    return layer | {LOCAL: displacement.with_one_kernel(layer[LOCAL], mask)}


def _undone(
    settings: config.Config, layers: list[dict], subjects: list[str], mask: Bool[ndarray, "h w"]
) -> float:
    """Over pairs with a subject that is decoded; not a number where it is not known."""
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
    shifts = np.stack([displacement.shift(layer[LOCAL]) for layer in layers])
    return displacement.undone(shifts, np.stack(truth), mask=mask, pairs=pairs)


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
