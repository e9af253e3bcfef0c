"""The same generator in glfa_jax and in torch (diffusers): one set of weights, two processes.

Every side lives in a process of its own, so that neither's memory counts with the other's, and
answers calls in turns. Its weights lie in a folder as a user would have them on disk.
"""

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import added_memory, parser, table, write_result
from benchmarks.pipelines import SCHEDULES, SIZES

# One process beside another cannot have three quarters of a GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def options(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What both comparisons can be told."""
    made = parser(doc, rounds=rounds)
    made.add_argument("--generator", choices=SCHEDULES, default="unet3d")
    made.add_argument("--size", choices=SIZES, default="small")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    made.add_argument("--variants", nargs="+", help="settings of torch; all when left out")
    return made


def conclude(
    facts: dict[str, Any],
    ours: dict[str, Any],
    theirs: list[dict[str, Any]],
    *,
    columns: dict[str, Callable[[dict[str, Any]], str]],
    path: Path | None,
) -> None:
    """Prints both sides as a table and the ratio to torch at its best; writes all where asked.

    theirs: rows with "over_jax" as `in_turns` finds it. columns: title to the cell of a row.
    """
    best = min(theirs, key=lambda row: row["over_jax"])
    columns = columns | {"times glfa_jax": lambda row: f"{row.get('over_jax', 1):.2f}"}
    titles = ["", *columns, "MiB", "compile or first call, s"]
    lines = []
    for name, row in [("glfa_jax", ours), *((f"torch, {row['variant']}", row) for row in theirs)]:
        begin = row.get("compile_seconds", row["first_call_seconds"])
        cells = [cell(row) for cell in columns.values()]
        lines.append([name, *cells, f"{row['memory_bytes'] / 2**20:.0f}", f"{begin:.1f}"])
    print(table(titles, lines))
    ratio = best["over_jax"]
    print(f"torch at its best ({best['variant']}) takes {ratio:.2f} times as long as glfa_jax")
    result = facts | {
        "jax": ours,
        "torch": theirs,
        "best_torch": best["variant"],
        "torch_over_jax": ratio,
        "memory_torch_over_jax": best["memory_bytes"] / ours["memory_bytes"],
    }
    write_result(path, result, packages=("jax", "jaxlib", "flax", "torch", "diffusers"))


def in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int
) -> tuple[list[float], dict[str, float]]:
    """Seconds of our turns; the median of theirs, and that over ours in the same rounds: machines
    get slower and faster, and one setting of torch is measured minutes after another."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    own, times = zip(*pairs, strict=True)
    median = statistics.median(times)
    return list(own), {"seconds": median, "over_jax": median / statistics.median(own)}


def by_variant(
    variants: Iterable[str],
    start: Callable[[str], Any],
    measure: Callable[[Any, str], dict[str, Any]],
) -> list[dict[str, Any]]:
    """What is measured of torch's side in each setting, or why it could not be."""
    rows = []
    for variant in variants:
        try:
            with start(variant) as side:
                row = measure(side, variant)
        except RuntimeError as error:  # a setting that this machine or version cannot do
            row = {"failed": str(error)[:300]}
        rows.append({"variant": variant, **row})
        print(rows[-1], flush=True)
    return rows


def require_torch() -> None:
    """Ends the program where there is nothing to compare with."""
    missing = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"this benchmark compares with diffusers' models on torch: {' and '.join(missing)} not "
            "installed; pip install 'glfa_jax[test]'"
        )


def torch_device() -> str:
    """Where torch runs: on the GPU where JAX does, else on the CPU."""
    import jax
    import torch

    if jax.default_backend() != "gpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("JAX sees a GPU and torch does not: install a torch with CUDA")
    return "cuda"


def channels_first(x: np.ndarray) -> np.ndarray:
    """(b, f, h, w, c) to torch's (b, c, f, h, w)."""
    return np.ascontiguousarray(x.transpose(0, 4, 1, 2, 3))


def channels_last(model: Any) -> None:
    """Lays out the kernels of torch's convolutions so that activations follow."""
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


class InJax:
    """What our sides share; `exact`: at highest precision."""

    def __init__(self, *, exact: bool):
        import jax

        on_gpu = jax.default_backend() == "gpu"
        if exact and jax.default_backend() != "cpu":  # a CPU knows no lower one
            jax.config.update("jax_default_matmul_precision", "highest")
        device: Any = jax.devices()[0]
        peak = (lambda: device.memory_stats()["peak_bytes_in_use"]) if on_gpu else None
        self._jax, self._memory = jax, Memory(peak)


class InTorch:
    """What torch's sides share; `variant`: words joined by "+", `exact` among them in float32."""

    def __init__(self, variant: str):
        import torch

        self._torch, self._device, self._words = torch, torch_device(), set(variant.split("+"))
        on_gpu = self._device == "cuda"
        self._memory = Memory(torch.cuda.max_memory_allocated if on_gpu else None)
        exact = "exact" in self._words
        torch.backends.cuda.matmul.allow_tf32 = not exact
        torch.backends.cudnn.allow_tf32 = not exact
        torch.backends.cudnn.benchmark = not exact

    def _synchronize(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    def _forget_peak(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.reset_peak_memory_stats()


def bytes_of(arrays: Iterable[Any]) -> int:
    """Of arrays of either library."""
    return sum(x.nbytes for x in arrays)


class Memory:
    """What a side needs: the device's peak or, on a CPU, what it holds and what a call adds."""

    def __init__(self, peak: Callable[[], int] | None):
        """peak: the device's, in bytes; None on a CPU."""
        self._peak = peak

    def of(self, call: Callable[[], Any], *, held: int) -> int:
        """Bytes. On a CPU `held` and by how much one call raises resident memory (Linux)."""
        if self._peak is not None:
            call()
            return self._peak()
        return held + added_memory(call)


class Side:
    """An object made and kept in a process of its own; its methods are called by name."""

    def __init__(self, make: Callable[..., Any], /, *arguments: Any, **options: Any):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, arguments, options), daemon=True
        )
        self._process.start()
        theirs.close()
        self._receive()

    def __call__(self, method: str, /, **options: Any) -> Any:
        self._connection.send((method, options))
        return self._receive()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(20)
        self._process.kill()

    def _receive(self) -> Any:
        try:
            worked, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"a side of the comparison ended with exit code {self._process.exitcode} (-9: it "
                "ran out of memory)"
            ) from None
        if not worked:
            raise RuntimeError(answer)
        return answer


def _serve(connection: Any, make: Callable, arguments: tuple, options: dict) -> None:
    try:
        made = make(*arguments, **options)
        connection.send((True, None))
        while True:
            method, given = connection.recv()
            connection.send((True, getattr(made, method)(**given)))
    except EOFError:  # nobody asks any more
        return
    except Exception as error:  # told to who asked
        connection.send((False, f"{type(error).__name__}: {error}"))
        raise
