"""How alike the maps of different subjects are before and after alignment, and why."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from eval import displacement
from eval.decoding import HeldOut
from glfa_jax import config, system
from glfa_jax.convert import pretrained
from glfa_jax.data.store import Store
from glfa_jax.subject_alignment import apply_layer, layer_for, layer_of
from glfa_jax.training.logs import savez_atomically

LOCAL = "weight"  # of the layer's parameters


def align_maps(test: HeldOut) -> None:
    """Writes alignment.npz: maps before and after GLFA, and how alike subjects are.

    Correlations between subjects are means over the test clips that all have: isc_before,
    isc_after, isc_one_kernel (after a layer whose local part is the same everywhere, the mean of
    the trained one's), isc_ceiling (`ceiling`). undone: `displacement.undone`, where known.
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
    encoder = pretrained.load("fmri_encoder", system.model_folder(settings, "cotrain") / "encoder")
    module = layer_of(encoder.module)
    layers = [layer_for(settings, encoder, subject=subject) for subject in subjects]
    uniform = [_uniform(layer, store.mask) for layer in layers]
    mask, middle = store.mask, settings.data.window // 2
    shown, alike = [], []
    for clip in clips:  # one at a time: all maps of a benchmark would fill the memory
        before = store.fmri("test", [clip], subjects=subjects)[0].astype(np.float32)
        after, otherwise = (
            np.stack([apply_layer(module, *pair) for pair in zip(kind, before, strict=True)])
            for kind in (layers, uniform)
        )
        alike.append([inter_subject_correlation(maps, mask) for maps in (before, after, otherwise)])
        shown = shown or [maps[:, middle] for maps in (before, after)]
    isc_before, isc_after, isc_one_kernel = np.mean(alike, axis=0)
    savez_atomically(
        path,
        mask=mask,
        subjects=subjects,
        before=shown[0],
        after=shown[1],
        isc_before=isc_before,
        isc_after=isc_after,
        isc_one_kernel=isc_one_kernel,
        isc_ceiling=ceiling(store, subjects),
        undone=_undone(settings, layers, subjects, mask),
    )


def _uniform(layer: dict, mask: Bool[ndarray, "h w"]) -> dict:
    if LOCAL not in layer:
        return layer
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
    truth = [displacement.true_displacement(settings.data, subject=name) for name in subjects]
    if not pairs or LOCAL not in layers[0] or any(one is None for one in truth):
        return float("nan")
    shifts = np.stack([displacement.shift(layer[LOCAL]) for layer in layers])
    return displacement.undone(shifts, np.stack(truth), mask=mask, pairs=pairs)


def inter_subject_correlation(maps: np.ndarray, mask: np.ndarray) -> float:
    """Mean Pearson correlation over cortex pixels, between subjects, of the same volume.

    maps: (subjects, window, h, w). Not a number with one subject.
    """
    values = maps[..., mask].astype(np.float64)
    values = values - values.mean(-1, keepdims=True)
    values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    pairs = combinations(range(len(maps)), 2)
    each = [np.einsum("wp,wp->w", values[i], values[j]).mean() for i, j in pairs]
    return float(np.mean(each)) if each else float("nan")


def ceiling(store: Store, subjects: list[str]) -> float:
    """The correlation that noise leaves between subjects whose signals are the same.

    From the reliability of each pixel over repeats of the test clips, by Spearman and Brown; not a
    number without repeats. Of maps as they are: smoothing takes noise away and may go beyond.
    """
    if len(subjects) < 2 or any(store.attributes.repeats[name] < 2 for name in subjects):
        return float("nan")
    halves = [np.maximum(store.quality("reliability", name)[store.mask], 0) for name in subjects]
    signal = [np.sqrt(2 * half / (1 + half)) for half in halves]
    return float(np.mean([(a * b).mean() for a, b in combinations(signal, 2)]))
