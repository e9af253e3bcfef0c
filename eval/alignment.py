"""How alike the maps of different subjects are, before and after alignment."""

import os
from itertools import combinations

import numpy as np

from eval.decoding import HeldOut
from glfa_jax import system
from glfa_jax.convert import pretrained
from glfa_jax.subject_alignment import align, encoder_for


def align_maps(test: HeldOut) -> None:
    """Maps before and after GLFA, and how alike subjects are, over the test clips all have."""
    settings, store = test.settings, test.store
    path = system.results_folder(settings) / "alignment.npz"
    path.unlink(missing_ok=True)
    protocol = settings.protocol
    if not settings.aligned or protocol.test_store is not None:  # no stimulus in common
        return
    subjects = list(dict.fromkeys((*protocol.train_subjects, *protocol.test_subjects)))
    present = store.present("test", subjects=subjects).all(1)
    clips = np.flatnonzero(present)[: settings.evaluation.clips]
    model = pretrained.load("fmri_encoder", system.model_folder(settings, "cotrain") / "encoder")
    if not len(clips):
        return
    encoders = [encoder_for(settings, model, subject=subject) for subject in subjects]
    mask, middle = store.mask, settings.data.window // 2
    shown, alike = [], []
    for clip in clips:  # one at a time: all maps of a benchmark would fill the memory
        before = store.fmri("test", [clip], subjects=subjects)[0].astype(np.float32)
        pairs = zip(encoders, before, strict=True)
        both = (before, np.stack([align(encoder, windows) for encoder, windows in pairs]))
        alike.append([inter_subject_correlation(maps, mask) for maps in both])
        shown = shown or [maps[:, middle] for maps in both]
    isc_before, isc_after = np.mean(alike, axis=0)
    aside = path.with_suffix(".partial.npz")
    np.savez(
        aside,
        mask=mask,
        subjects=subjects,
        before=shown[0],
        after=shown[1],
        isc_before=isc_before,
        isc_after=isc_after,
    )
    os.replace(aside, path)


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
