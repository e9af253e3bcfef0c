"""The comparisons with torch run, and reject to compare different work."""

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import pipelines, sampling, side_by_side, train_step
from benchmarks.operations import operations
from benchmarks.side_by_side import Side

_LAST = ("NHC", "HIO", "NHC")
QUICK = ["--size", "tiny", "--variants", "eager", "--rounds", "1"]


class Here:
    """A side in this process: starting another takes seconds."""

    def __init__(self, make: Callable[..., Any], /, *arguments: Any, **options: Any):
        self._made = make(*arguments, **options)

    def __call__(self, method: str, /, **options: Any) -> Any:
        return getattr(self._made, method)(**options)

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in (train_step, sampling):
        monkeypatch.setattr(program, "Side", Here)


@pytest.mark.parametrize("generator", ["unet3d", "wan"])
def test_a_training_step(generator: str, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    asked = ["--generator", generator, "--steps", "1", "--json", str(target)]
    assert train_step.main([*QUICK, *asked, "--no-remat"]) == 0
    result = json.loads(target.read_text())
    assert result["best_torch"] == "eager"
    assert result["torch_over_jax"] > 0
    assert result["jax"]["operations"] > 1e5
    assert result["jax"]["memory_bytes"] > 0


@pytest.mark.parametrize("generator", ["unet3d", "wan"])
def test_sampling(generator: str, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    asked = ["--generator", generator, "--steps", "3", "--json", str(target)]
    assert sampling.main([*QUICK, *asked]) == 0
    result = json.loads(target.read_text())
    assert result["jax"]["frames_a_second"] > 0
    assert result["torch_over_jax"] > 0


def test_other_steps_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, side: str, moment: float):
            for name, value in (("moment", moment), ("update", 1.0)):
                np.savez(tmp_path / f"{side}-{name}.npz", weight=np.full(3, value))

        def check(self, steps: int) -> list[float]:
            return [1.0] * steps

    def compare(moment: float) -> dict[str, float]:
        monkeypatch.setattr(train_step, "Ours", lambda *_, **__: Fake("ours", moment))
        monkeypatch.setattr(train_step, "Theirs", lambda *_, **__: Fake("theirs", 1.0))
        size = pipelines.size_of("wan", "tiny")
        return train_step.check(tmp_path, size, generator="wan", rows=1, remat=False)

    assert compare(1.0)["moment"] == 0
    with pytest.raises(SystemExit, match=r"not make the same steps: they differ by .*moment"):
        compare(1.01)


def test_operations_are_counted_as_often_as_loops_run() -> None:
    def looped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        def body(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
            return jax.jit(jnp.dot)(x, kernel), None

        return jax.lax.scan(body, x, kernel)[0]

    shapes = [jax.ShapeDtypeStruct(sides, jnp.float32) for sides in ((2, 3), (5, 3, 3))]
    assert operations(jax.make_jaxpr(looped)(*shapes)) == 5 * 2 * (2 * 3 * 3)

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=_LAST)

    shapes = [jax.ShapeDtypeStruct(sides, jnp.float32) for sides in ((2, 7, 3), (3, 3, 4))]
    assert operations(jax.make_jaxpr(convolved)(*shapes)) == 2 * (2 * 7 * 4) * (3 * 3)


def test_a_side_answers_from_its_process() -> None:
    with Side(collections.Counter, "aab") as side:
        assert side("most_common", n=1) == [("a", 2)]
        with pytest.raises(RuntimeError, match=r"AttributeError: .*nothing_such"):
            side("nothing_such")


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="torch and diffusers not installed"):
        side_by_side.require_torch()
