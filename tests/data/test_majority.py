"""The caption of a clip by vote of its frames, against a count by hand."""

import itertools

import numpy as np
import pytest

from glfa_jax.data.majority import majority


@pytest.mark.parametrize(
    ("captions", "wanted"),
    [
        ([], ("", 0)),
        (["", ""], ("", 0)),
        (["a dog"], ("a dog", 1)),
        (["a dog", "a cat", "a cat"], ("a cat", 2)),
        (["", "", "a dog"], ("a dog", 1)),
        # All different: the second shares "red" and "ball" with both others.
        (["a red car", "a red ball", "one blue ball"], ("a red ball", 1)),
        # Two against two: the fifth frame's words decide.
        (["x y", "a b", "x y", "a b", "b c"], ("a b", 2)),
        # Nothing decides: the first.
        (["left", "right"], ("left", 1)),
        # Case and points are no words.
        (["the sea", "A dog.", "a dog runs"], ("A dog.", 1)),
    ],
)
def test_cases_by_hand(captions, wanted):
    assert majority(captions) == wanted


def by_definition(captions):
    """Every caption against every other one of the list, as the docstring puts it."""

    def overlap(a, b):
        a, b = set(a.split()), set(b.split())
        return len(a & b) / len(a | b)

    def rank(i):
        shared = sum(overlap(captions[i], c) for c in captions if c != captions[i])
        return -captions.count(captions[i]), -round(shared, 9), i

    return captions[min(range(len(captions)), key=rank)]


def test_it_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    vocabulary = [" ".join(words) for words in itertools.combinations("abcd", 2)]
    for _ in range(300):
        captions = list(rng.choice(vocabulary, size=rng.integers(1, 7)))
        caption, votes = majority(captions)
        assert votes == max(map(captions.count, captions))
        best = by_definition(captions)
        assert captions.count(caption) == captions.count(best)
        assert caption == best
