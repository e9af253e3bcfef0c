"""What preparing says at its end: a few lines on samples, cleaning and signal, and warnings."""

from collections.abc import Iterator, Sequence

import numpy as np

from glfa_jax import config
from glfa_jax.data.attributes import Attributes
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.layouts import SPLITS, Split, cleaning_of
from glfa_jax.data.planning import Cut, Plan

WARNINGS = 20  # printed; all of them are in the store


def _warnings(notes: Sequence[str]) -> Iterator[str]:
    """The first of the notes, and how many more there are."""
    yield from (f"  warning: {note}" for note in notes[:WARNINGS])
    if len(notes) > WARNINGS:
        yield f"  and {len(notes) - WARNINGS} more warnings, all of them in the store's notes"


def summary(
    data: config.Data, attributes: Attributes, flat: FlatMap, made: Plan, *, notes: Sequence[str]
) -> Iterator[str]:
    """All lines on a store that was just made; notes: those to be said."""
    clips = ", ".join(f"{len(attributes.clips[split])} {split}" for split in SPLITS)
    lag = round(attributes.lag_seconds / attributes.repetition_time)
    yield f"{data.store}: {len(attributes.subjects)} subjects, samples: {clips}"
    yield (
        f"  TR {attributes.repetition_time:g} s, lag {attributes.lag_seconds:g} s "
        f"({lag} volumes), window {attributes.window} volumes, {data.frames} frames of "
        f"{data.resolution[0]} x {data.resolution[1]}"
    )
    yield f"  cleaning (data.clean): {cleaning_of(data).words}"
    size = "" if flat.pixel_mm is None else f" of {flat.pixel_mm:.2f} mm"
    yield f"  flat map {data.map_size} x {data.map_size}, {flat.mask.sum()} cortex pixels{size}"
    for split in SPLITS:
        for subject in attributes.subjects:
            yield _signal_summary(made, subject, split)
    yield from _warnings(notes)
    if data.latents:
        yield "  next: the VAE's latents, by train.latents, or by train.cotrain before it trains"


def _signal_summary(made: Plan, subject: str, split: Split) -> str:
    cuts = made.of(subject, split)
    samples = sum(map(bool, made.shown[subject, split].values()))
    peak = max((cut.signal.peak for cut in cuts), default=0.0)
    tsnr = np.median([cut.signal.tsnr for cut in cuts]) if cuts else 0.0
    return (
        f"  sub-{subject} {split}: {len(cuts)} runs, {sum(cut.signal.kept for cut in cuts)} "
        f"volumes, {samples} samples, {len(made.keys[split]) - samples} missing, "
        f"{sum(cut.missing for cut in cuts)} trials cut short by a run's end; "
        f"{sum(cut.signal.silent for cut in cuts)} constant pixels, largest |z| {peak:.1f}, "
        f"median temporal SNR {tsnr:.1f}{_cleaned_summary(cuts)}"
    )


def _cleaned_summary(cuts: Sequence[Cut]) -> str:
    after = [cut.signal.quality.get("tsnr_cleaned") for cut in cuts]
    known = [value for value in after if value is not None]
    if not known:
        return ""
    censored = sum(cut.signal.quality.get("censored", 0) for cut in cuts)
    volumes = f", {censored} volumes censored" if censored else ""
    return f", {np.median(known):.1f} after cleaning{volumes}"
