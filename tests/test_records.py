"""JSON to dataclasses: what fits is taken, and of what does not the place is named."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest

from glfa_jax.errors import InputError
from glfa_jax.records import Text, decode, read


class Part(TypedDict, total=False):
    size: int


@dataclass(frozen=True)
class Whole:
    place: Path
    names: tuple[str, ...]
    words: dict[Literal["a", "b"], list[Text]]
    parts: list[Part]
    anything: Any
    length: float | None


FITS = {
    "names": ["x"],
    "words": {"a": ["two\nlines", ""], "b": []},
    "parts": [{"size": 1}, {}],
    "anything": {"c": [None]},
    "length": 2,
}


def test_a_file_is_read_by_the_annotations(tmp_path):
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(FITS))
    whole = read(Whole, path, place=tmp_path)
    assert whole == Whole(tmp_path, ("x",), FITS["words"], FITS["parts"], FITS["anything"], 2.0)
    assert isinstance(whole.length, float)
    path.write_text(json.dumps(FITS | {"length": "2"}))
    with pytest.raises(InputError, match=r'whole\.json: length: must be finite, got "2"'):
        read(Whole, path, place=tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"names": "x"}, 'names: must be a list, got "x"'),
        ({"names": ["x", "y\nz"]}, r'names[1]: must be one line of text, got "y\nz"'),
        ({"words": {"c": []}}, 'words: must be one of a, b, got "c"'),
        ({"words": {"a": [1]}}, "words.a[0]: must be text, got 1"),
        ({"parts": [{"size": True}]}, "parts[0].size: must be a whole number, got true"),
        ({"parts": [{"weight": 1}]}, "parts[0].weight: unknown key, known here are size"),
        ({"place": "x"}, "place: unknown key, known here are names, words, parts"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(change, sentence):
    with pytest.raises(InputError) as told:
        decode(Whole, FITS | change, given={"place": Path()})
    assert sentence in str(told.value)
