"""The sound files of every parser, and the inputs made of them."""

import multiprocessing
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.mutation import mutated
from benchmarks.fuzz.parser import Parser

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Case:
    """Input `number` of a parser, as a function of the seed; a negative number is a sound file."""

    parser: str
    number: int
    seed: int = 0
    replaced: bytes | None = None  # a given content, instead of what the number says
    place: Path | None = None


@dataclass(frozen=True)
class Corpus:
    """The sound files of a parser in `folder`; places are relative to it."""

    parser: Parser
    folder: Path
    places: tuple[Path, ...]
    contents: tuple[bytes, ...]

    def input(self, case: Case) -> tuple[Path, bytes]:
        """Where an input goes and what it is."""
        if case.replaced is not None:
            return case.place or self.places[0], case.replaced
        if case.number < 0:
            return self.places[-1 - case.number], self.contents[-1 - case.number]
        name = zlib.crc32(self.parser.name.encode())
        rng = np.random.default_rng([case.seed, name, case.number])
        chosen = int(rng.integers(len(self.places)))
        suffix = self.places[chosen].suffix
        pairs = zip(self.places, self.contents, strict=True)
        alike = [content for place, content in pairs if place.suffix == suffix]
        words = self.parser.words
        return self.places[chosen], mutated(self.contents[chosen], rng, others=alike, words=words)

    def sound(self, seed: int = 0) -> list[Case]:
        """Every sound file as it is."""
        return [Case(self.parser.name, -1 - i, seed) for i in range(len(self.places))]


def corpora(parsers: Sequence[Parser], folder: Path) -> dict[str, Corpus]:
    """Makes the sound files, in a process of its own: libraries that have worked fork badly."""
    ours, theirs = _FORK.Pipe()
    maker = _FORK.Process(target=_make, args=(theirs, parsers, folder))
    maker.start()
    theirs.close()
    try:
        made = ours.recv()
    except EOFError:
        raise RuntimeError("the sound files could not be made; see above") from None
    maker.join()
    found = {}
    for parser in parsers:
        place = folder / parser.name
        contents = tuple((place / name).read_bytes() for name in made[parser.name])
        found[parser.name] = Corpus(parser, place, tuple(made[parser.name]), contents)
    return found


def _make(connection: Any, parsers: Sequence[Parser], folder: Path) -> None:
    made = {}
    for parser in parsers:
        place = folder / parser.name
        place.mkdir(parents=True)
        made[parser.name] = [path.relative_to(place) for path in parser.make(place)]
    connection.send(made)
