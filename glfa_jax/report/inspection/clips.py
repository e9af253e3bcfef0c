"""The section of clips that play beside the maps that followed them."""

from typing import Any

import numpy as np

from glfa_jax.data.store import Store
from glfa_jax.data.video import resize
from glfa_jax.report.inspection.inspection import spread_evenly
from glfa_jax.report.pictures import (
    COLUMNS,
    Picture,
    Scale,
    colour_bar,
    film,
    flat_map,
    key_frames,
)
from glfa_jax.report.words import count_text

# Wider clips are made smaller, so that the page stays light.
WIDEST = 320


def clips_section(store: Store, number: int) -> dict[str, Any]:
    """rhythm: in which clip and window play; lag, seconds (of a clip) and period, in seconds;
    shown: for each clip its name, caption, columns and cells, a picture or a sentence each."""
    about, mask = store.attributes, store.mask
    picks = spread_evenly(store, clips=number)
    window = about.window * about.repetition_time
    period, frames = max(window, about.clip_seconds), store.sample[0]
    rhythm = [
        key_frames(name, cells=cells, seconds=seconds, period=period)
        for name, cells, seconds in (
            ("film", frames, about.clip_seconds / frames),
            ("window", about.window, about.repetition_time),
        )
    ]
    section = {
        "rhythm": rhythm,
        "count": count_text(len(picks), "test clip"),
        "total": store.num_clips("test"),
        "lag": about.lag_seconds,
        "seconds": about.clip_seconds,
        "period": period,
        "shown": [],
    }
    if not picks:
        return section
    maps = store.fmri("test", picks, subjects=about.subjects).astype(np.float32)
    there = store.present("test", subjects=about.subjects)[picks]
    scale = Scale.around_zero([maps[there]], mask)
    for pick, video, own, known in zip(picks, store.video("test", picks), maps, there, strict=True):
        clip, caption = about.clips["test"][pick], about.captions["test"][pick]
        words = f"Test clip {clip}: {caption}"
        cells: list[tuple[Picture | str, str]]
        cells = [(film(_smaller(video), words=words, playing="film"), "the clip")]
        for subject, strip, is_there in zip(about.subjects, own, known, strict=True):
            words = f"Flat maps of subject {subject} during clip {clip}"
            picture = (
                flat_map(strip, mask=mask, scale=scale, words=words, playing="window")
                if is_there
                else "no sample"
            )
            cells.append((picture, f"subject {subject}"))
        columns = min(len(cells), COLUMNS)
        section["shown"].append(
            {"clip": clip, "caption": caption, "columns": columns, "cells": cells}
        )
    bar = colour_bar(scale, unit="z", words="Colour scale from below to above the run's mean")
    return section | {"bar": bar}


def _smaller(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    if width <= WIDEST:
        return frames
    return resize(frames, resolution=(max(1, round(height * WIDEST / width)), WIDEST))
