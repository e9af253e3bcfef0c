"""Programs that are compiled once for studies of the same sizes and options.

What is traced for a stage, for sampling and for scoring takes every array as an argument, so one
study's programs serve the next. Tracing takes far longer than the few steps of a tiny study.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import pytest

from glfa_jax import decoder
from glfa_jax.evaluation import decoding, score
from glfa_jax.trained.sampler import VideoSampler
from glfa_jax.training import loop


@contextmanager
def programs_shared() -> Iterator[None]:
    """While the block lasts, for studies that differ in data, subjects and names alone."""
    sampler, models = _Sampler(), _once(score.evaluation_models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "jitted_step", _Steps(loop.jitted_step))
        patch.setattr(loop.speed, "costs", cache(loop.speed.costs))  # reads the program's text
        patch.setattr(decoding, "VideoSampler", sampler)
        patch.setattr(decoder, "VideoSampler", sampler)
        patch.setattr(score, "evaluation_models", models)
        yield


def _once(make: Callable[..., Any]) -> Callable[..., Any]:
    made: list[Any] = []

    def give(*arguments: Any) -> Any:
        if not made:
            made.append(make(*arguments))
        return made[0]

    return give


class _Steps:
    """In place of `jitted_step`: compiled steps by the shapes of what they take."""

    def __init__(self, make: Callable[..., Any]):
        self._make, self._known = make, {}

    def __call__(self, *parts: Any, **options: Any) -> Any:
        return _Step(self._make(*parts, **options), self._known)


class _Step:
    def __init__(self, jitted: Any, known: dict[Any, Any]):
        self._jitted, self._known = jitted, known

    def trace(self, *shapes: Any) -> "_Traced":
        leaves, tree = jax.tree.flatten(shapes)
        key = (tree, tuple((x.shape, str(x.dtype)) for x in leaves))
        if key not in self._known:
            self._known[key] = _Traced(self._jitted.trace(*shapes))
        return self._known[key]


class _Traced:
    def __init__(self, program: Any):
        self._program, self._compiled = program, None
        self.jaxpr = program.jaxpr

    def lower(self) -> "_Traced":
        return self

    def compile(self, **options: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._program.lower().compile(**options)
        return self._compiled


class _Sampler:
    """In place of the class: one sampler, which takes one study's model after the other."""

    def __init__(self) -> None:
        self._kept: VideoSampler | None = None

    def __call__(self, model: Any, settings: Any, **beside: Any) -> VideoSampler:
        if self._kept is None:
            self._kept = VideoSampler(model, settings, **beside)
        else:
            self._kept._parts = None  # the same modules, of subjects with other names
            self._kept.load(model, **beside)
        return self._kept
