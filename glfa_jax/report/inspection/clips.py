"""The section of clips that play beside the maps that followed them."""

import numpy as np

from glfa_jax.data.store import Store
from glfa_jax.data.video import resize
from glfa_jax.report import figures
from glfa_jax.report.html import escape
from glfa_jax.report.inspection.inspection import spread_evenly
from glfa_jax.report.maps import Scale, colour_bar, cropped, film, keyframes, picture, playing
from glfa_jax.report.words import absent_note, count_text

# Wider clips are made smaller, so that the page stays light.
WIDEST = 320
COLUMNS = 4


def _times(store: Store) -> tuple[float, float]:
    """Seconds of a window, and until clip and window start again."""
    window = store.attributes.window * store.attributes.repetition_time
    return window, max(window, store.attributes.clip_seconds)


def rhythm(store: Store) -> str:
    about, frames, period = store.attributes, store.sample[0], _times(store)[1]
    return "\n".join(
        keyframes(name, cells=cells, seconds=seconds, period=period)
        for name, cells, seconds in (
            ("film", frames, about.clip_seconds / frames),
            ("window", about.window, about.repetition_time),
        )
    )


def clips_section(store: Store, number: int) -> str:
    about, mask = store.attributes, store.mask
    picks = spread_evenly(store, clips=number)
    if not picks:
        return absent_note("No clips were asked for, or the store holds no test sample.")
    maps = store.fmri("test", picks, subjects=about.subjects).astype(np.float32)
    videos = store.video("test", picks)
    there = store.present("test", subjects=about.subjects)[picks]
    scale = Scale.around_zero(figures.map_limit([maps[there]], mask))
    window, period = _times(store)
    wait = (
        f" The window is longer than the clip, which fades after {about.clip_seconds:g} s and "
        f"starts again with its window every {period:g} s."
        if window > about.clip_seconds
        else f" Both start again every {period:g} s."
    )
    out = [
        f"<p>{count_text(len(picks), 'test clip')} of {store.num_clips('test'):,}, evenly spread "
        "over the test set and not chosen. Beside each plays its window of maps in the same "
        "rhythm, shifted by the lag: the map beside a frame was recorded about "
        f"{about.lag_seconds:g} s after it.{wait} Activity should come and go smoothly, and "
        "similar patterns should show in all subjects; flicker from volume to volume is noise.</p>"
    ]
    crop = cropped(mask)
    cell = (crop[0].stop - crop[0].start, crop[1].stop - crop[1].start)
    for row, pick in enumerate(picks):
        frames = _smaller(videos[row])
        caption = about.captions["test"][pick]
        shown = [
            _cell(
                playing(
                    film(frames),
                    name="film",
                    shape=frames.shape[1:3],
                    alt=f"Test clip {about.clips['test'][pick]}: {caption}",
                ),
                "the clip",
            )
        ]
        for i, subject in enumerate(about.subjects):
            if not there[row, i]:
                shown.append(_cell('<p class="absent">no sample</p>', f"subject {subject}"))
                continue
            strip = picture(maps[row, i], mask=mask, scale=scale)
            alt = f"Flat maps of subject {subject} during clip {about.clips['test'][pick]}"
            shown.append(
                _cell(playing(strip, name="window", shape=cell, alt=alt), f"subject {subject}")
            )
        columns = min(len(shown), COLUMNS)
        out.append(
            f'<figure class="shown" style="--columns:{columns}"><figcaption><b>'
            f"{escape(about.clips['test'][pick])}</b> <span class='caption'>{escape(caption)}"
            f"</span></figcaption>{''.join(shown)}</figure>"
        )
    out.append(colour_bar(scale, unit="z", label="Colour scale from below to above the run's mean"))
    return "".join(out)


def _cell(content: str, name: str) -> str:
    return f"<div>{content}<span>{escape(name)}</span></div>"


def _smaller(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    if width <= WIDEST:
        return frames
    return resize(frames, resolution=(max(1, round(height * WIDEST / width)), WIDEST))
