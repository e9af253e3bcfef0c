"""`data.films`: the films that runs show, by their events or by the configuration, as clips."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Trial
from glfa_jax.data.layouts.clips import on_disk
from glfa_jax.data.layouts.cutting import (
    ROUNDING,
    Showing,
    check_length,
    check_one_at_a_time,
    check_step,
    cut,
    length_of,
)
from glfa_jax.data.layouts.naming import Name
from glfa_jax.data.missing import Missing
from glfa_jax.data.tables import stimulus
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched


class Filmed:
    """Cuts the films of one run after another.

    videos: the part of its film that each clip is.
    """

    def __init__(self, films: config.Films, *, stimuli: Path, missing: Missing, notes: list[str]):
        self._films, self._stimuli, self._missing, self._notes = films, stimuli, missing, notes
        self._used: set[int] = set()
        self._length = cache(length_of)
        self.videos: dict[str, Part] = {}

    def stated(self, name: Name) -> list[Showing]:
        """What the configuration says that a run shows; nothing where events are to say it."""
        found = []
        for number, shown in enumerate(self._films.shown):
            if any(map(name.fits, shown.runs)):
                self._used.add(number)
                film = stimulus(shown.film, said=f"data.films.shown.{number}.film")
                film = on_disk(self._stimuli, film)
                duration = math.inf if shown.duration is None else shown.duration
                found.append(Showing(film, shown.onset, shown.start, duration))
        return found

    def clips(
        self, showings: Sequence[Showing], *, said: str, step: float
    ) -> tuple[tuple[Trial, ...], float | None]:
        """The clips of a run, and when the last film ends whose duration nothing but its file says.

        said: where the showings are stated. What is shown for less than a clip is no film; one that
        is not there is missing, and its clips are left out. Raises DataError where a film is
        shorter than what is said, where two are shown at once, or where there is none.
        """
        seconds = self._films.seconds
        check_step(seconds, step=step, where="data.films.seconds")
        trials: list[Trial] = []
        ends: list[float] = []
        films = [showing for showing in showings if showing.duration >= seconds - ROUNDING]
        there: list[Showing] = []
        for showing in list(films):
            path = self._stimuli / showing.film
            if not is_fetched(path):
                self._missing.video(path)
            elif (length := self._length(path)) < seconds - ROUNDING:  # an image, such as a cross
                self._notes.append(f"{path}: lasts {length:g} s, less than a clip; passed over")
                films.remove(showing)
            else:
                whole = check_length(showing, path=path, length=length, said=said)
                there.append(whole)
                if math.isinf(showing.duration):
                    ends.append(whole.onset + whole.duration)
        if not films:
            raise DataError(
                f"{said}: shows nothing for as long as a clip, data.films.seconds of {seconds:g} s"
            )
        check_one_at_a_time(there, said=said)
        for whole in there:
            for trial, begin in cut(whole, seconds=seconds):
                trials.append(trial)
                self.videos[trial.clip] = Part(self._stimuli / whole.film, begin, seconds)
        known = len(ends) < len(films)
        return tuple(trials), None if known or not ends else max(ends)

    def length(self, film: str) -> float:
        """Seconds that one of the films lasts."""
        return self._length(self._stimuli / film)

    def in_vain(self) -> Iterator[DataError]:
        """A sentence for each entry of `data.films.shown` that no run fits."""
        for number, shown in enumerate(self._films.shown):
            if number not in self._used:
                runs = ", ".join(map(repr, shown.runs))
                yield DataError(f"data.films.shown.{number}.runs: {runs} fits no run")
