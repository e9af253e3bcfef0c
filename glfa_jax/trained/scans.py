"""Scans of one run to the maps that a decoder takes, with no study configured and no store."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Bool, Float, Float16, Int

from glfa_jax.data import DataError
from glfa_jax.data.assembling import images_of
from glfa_jax.data.layouts import Run, Trial
from glfa_jax.data.layouts.beside import Beside
from glfa_jax.data.layouts.cutting import Showing
from glfa_jax.data.one_run import read_run
from glfa_jax.data.shown import Shown, by_events, by_films, throughout
from glfa_jax.data.signals import ReadRun, Signal
from glfa_jax.data.video import Part
from glfa_jax.data.windows import window_of
from glfa_jax.errors import InputError
from glfa_jax.files import reason
from glfa_jax.starting import typed
from glfa_jax.trained import Trained


@dataclass(frozen=True, eq=False)
class RunMaps:
    """What one run's scans are for a decoder.

    clips: names. onsets, durations: seconds on the run's clock. firsts: of the windows, counted in
    volumes. shown: the piece of video that a clip showed, where its file is there. left_out: names
    of clips whose window is not wholly in the run. notes: what deserves a look, a sentence each.
    cleaning: what was taken out of the scans, in words. run: where it was read from. scores:
    z-scores of the cortex pixels.
    """

    clips: tuple[str, ...]
    onsets: Float[np.ndarray, " clips"]
    durations: Float[np.ndarray, " clips"]
    firsts: Int[np.ndarray, " clips"]
    shown: tuple[Part | None, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    cleaning: str
    run: Run = field(repr=False)
    scores: Float[np.ndarray, "time pixels"] = field(repr=False)
    mask: Bool[np.ndarray, "height width"] = field(repr=False)
    window: int

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def maps(self) -> Float16[np.ndarray, "clips window height width"]:
        """Of all clips, as `Decoder.decode` takes them."""
        return self.some(range(len(self)))

    @property
    def every(self) -> Float16[np.ndarray, "n window height width"]:
        """All whole windows of the run one after another, whatever was shown."""
        count = len(self.scores) // self.window
        return self._drawn(self.scores[: count * self.window].reshape(count, self.window, -1))

    def some(self, clips: Sequence[int]) -> Float16[np.ndarray, "n window height width"]:
        firsts = self.firsts[np.asarray(clips, int)]
        windows = [self.scores[first : first + self.window] for first in firsts]
        return self._drawn(np.stack(windows))

    def _drawn(self, values: Float[np.ndarray, "n w pixels"]) -> np.ndarray:
        """As a prepared store keeps maps."""
        return images_of(values, mask=self.mask).astype(np.float16)


def maps_of(
    trained: Trained,
    files: Sequence[str | Path],
    *,
    events: str | Path | None = None,
    films: Sequence[Showing] = (),
    stimuli: str | Path | None = None,
    confounds: str | Path | None = None,
    repetition_time: float | None = None,
) -> RunMaps:
    """Cleaned and drawn as the store was that the decoder was trained on; see `Decoder.maps_of`."""
    if not files:
        raise InputError("files: must name the scans of a run")
    if events is not None and films:
        raise InputError("films: must be left out where events say what was shown")
    settings, timing = trained.settings, trained.trained_on.timing
    try:
        kept = trained.trained_on.with_drawing(settings.data)
    except DataError as error:
        raise InputError(
            "this decoder does not keep how scans become its maps, and that cannot be made here "
            f"({reason(error)}); export the run again ({typed('glfa_jax.export')}) where the "
            "surfaces of its store are"
        ) from None
    assert kept.drawing is not None
    notes: list[str] = []
    run = read_run(
        [Path(file) for file in files],
        drawing=kept.drawing,
        data=settings.data,
        step=timing.repetition_time,
        confounds=None if confounds is None else Path(confounds),
        stated=repetition_time,
        notes=notes,
    )
    with TemporaryDirectory() as place:
        piece = Path(place, "run")
        ReadRun(run, kept.drawing.pixels, kept.drawing.cleaning).write(piece)
        signal = Signal.read(piece)
        scores = np.array(signal.window(0, signal.volumes))
    window, volumes = settings.data.window, signal.volumes
    who = run.scans[0]
    if volumes < window:
        raise InputError(f"{who}: {volumes} volumes, a window needs {window}")
    if (peak := np.abs(scores).max()) > np.finfo(np.float16).max:
        raise InputError(f"{who}: a z-score of {peak:.3g}; the run hardly varies but at one moment")
    options = {"volumes": volumes, "seconds": timing.clip_seconds}
    beside = {"stimuli": _stimuli(stimuli, who), "notes": notes}
    if events is not None:
        shown = by_events(Path(events), run, **options, **beside)
    elif films:
        shown = by_films(films, run, **options, **beside)
    else:
        shown = throughout(run, **options, lag=timing.lag_seconds, window=window)
    firsts = [
        window_of(run, trial, lag=timing.lag_seconds, window=window, volumes=volumes)
        for trial in shown.trials
    ]
    return _cut(
        run,
        shown,
        firsts,
        notes=(*notes, *signal.notes),
        cleaning=kept.drawing.cleaning.words,
        scores=scores,
        mask=kept.mask,
        window=window,
    )


def _stimuli(given: str | Path | None, scan: Path) -> Path:
    """As in BIDS where no folder is named: of the scan's data set, or of what that was made of."""
    return Beside.of(scan).stimuli if given is None else Path(given)


def _cut(
    run: Run, shown: Shown, firsts: Sequence[int | None], *, notes: Sequence[str], **held
) -> RunMaps:
    inside = [
        (t, first) for t, first in zip(shown.trials, firsts, strict=True) if first is not None
    ]
    if not inside:
        raise InputError(
            f"{run.scans[0]}: the window of none of the {len(firsts)} clips is wholly in the run"
        )
    trials: list[Trial] = [trial for trial, _ in inside]
    return RunMaps(
        clips=tuple(trial.clip for trial in trials),
        onsets=np.array([trial.onset for trial in trials]),
        durations=np.array([trial.duration for trial in trials]),
        firsts=np.array([first for _, first in inside]),
        shown=tuple(shown.videos.get(trial.clip) for trial in trials),
        left_out=tuple(
            t.clip for t, first in zip(shown.trials, firsts, strict=True) if first is None
        ),
        notes=tuple(dict.fromkeys(notes)),
        run=run,
        **held,
    )
