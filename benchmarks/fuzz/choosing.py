"""Which parsers are tried, on which inputs, and what a failing input is called."""

import importlib
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from benchmarks.fuzz.corpus import Case, Corpus
from benchmarks.fuzz.parser import Parser
from benchmarks.fuzz.serving import Outcome
from glfa_jax.errors import InputError
from glfa_jax.files import validate_regular

# From the name of a parser to the module that knows it: only what is asked for is imported.
MODULES = {
    "study": ("events", "sidecar", "captions", "vid2name", "video", "config", "override"),
    "scans": ("gifti", "surface", "label", "cifti", "nifti", "hdf5", "mask"),
    "models": (
        *("safetensors", "pth", "weights_index", "model_config", "scheduler", "preprocessor"),
        "tokenizer",
    ),
    "runs": ("store", "scores", "sample_index", "samples", "done", "log", "checkpoint", "lock"),
}
NAMES = tuple(name for names in MODULES.values() for name in names)
SECONDS = 60.0


def parsers(wanted: str | None) -> list[Parser]:
    """Those named, separated by commas; all without. Raises InputError for an unknown name."""
    chosen = NAMES if wanted is None else tuple(dict.fromkeys(wanted.split(",")))
    if unknown := [name for name in chosen if name not in NAMES]:
        raise InputError(
            f"--parsers: there is no {' and no '.join(map(repr, unknown))}, there are "
            f"{', '.join(NAMES)}"
        )
    found = {}
    for module, names in MODULES.items():
        if set(names) & set(chosen):
            made = importlib.import_module(f"benchmarks.fuzz.{module}").PARSERS
            found |= {parser.name: parser for parser in made}
    return [found[name] for name in chosen]


def cases(
    parsers: Sequence[Parser], *, seed: int, inputs: int | None, seconds: float | None
) -> Iterator[Case]:
    """So many inputs, or for so long; in turns, each parser as often as its share says."""
    end = time.monotonic() + (SECONDS if seconds is None else seconds)
    whole, given = (
        sum(parser.share for parser in parsers),
        dict.fromkeys((parser.name for parser in parsers), 0),
    )
    for turn in count(1):
        for parser in parsers:
            # Of the first n rounds' inputs as many as the share of the whole, whatever n is.
            wanted = parser.share * turn
            if inputs is not None:
                wanted = min(wanted, _part(inputs, parsers, parser, whole))
            while given[parser.name] < wanted:
                if inputs is None and time.monotonic() > end:
                    return
                yield Case(parser.name, given[parser.name], seed)
                given[parser.name] += 1
        if inputs is not None and sum(given.values()) >= inputs:
            return


def _part(inputs: int, parsers: Sequence[Parser], parser: Parser, whole: int) -> int:
    """Of all inputs; rounded so that the parts add up."""
    before = sum(other.share for other in parsers[: parsers.index(parser)])
    return inputs * (before + parser.share) // whole - inputs * before // whole


# --- failing inputs -------------------------------------------------------------------------------


def keep(folder: Path, outcome: Outcome, corpus: Corpus) -> Path:
    """Writes an input under a name that tells parser, seed, number and place."""
    folder.mkdir(parents=True, exist_ok=True)
    place, content = corpus.input(outcome.case)
    case = outcome.case
    number = f"sound{-case.number}" if case.number < 0 else str(case.number)
    path = folder / f"{case.parser}-{case.seed}-{number}-{_flat(place)}"
    path.write_bytes(content)
    return path


def replayed(path: Path, corpus: Corpus) -> Case:
    """A file that `keep` wrote; another one goes where its ending is usual."""
    validate_regular(path)
    fitting = [place for place in corpus.places if path.name.endswith(f"-{_flat(place)}")]
    fitting += [place for place in corpus.places if place.suffix == path.suffix]
    fitting += corpus.places
    return Case(corpus.parser.name, 0, replaced=path.read_bytes(), place=fitting[0])


def _flat(place: Path) -> str:
    return "+".join(place.parts)
