"""The harness of the benchmarks: command lines, times, memory, tables, and results as JSON.

Importing it starts neither JAX nor torch, so that a process whose memory is measured may use it.
"""

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glfa_jax.files import write_atomically


def parser(doc: str | None, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """What every benchmark can be told; `doc` is the script's, `rounds` the default where it has
    any."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help="turns of a median")
    made.add_argument("--json", type=Path, help="where to write the result")
    return made


def median_seconds(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    before: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, float]:
    """Median time of each call over rounds in which all take turns.

    before: what is called, unmeasured, just before each; the call itself when left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            (before or calls)[name]()  # the others have taken the caches and the freed memory
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory() -> int:
    """Of this process, in bytes; getrusage would count that of the process which started it."""
    return _status("VmHWM")


def added_memory(call: Callable[[], Any]) -> int:
    """Bytes by which one call raises the resident memory of this process, its result included."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls and the compiler have freed
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    kept = call()
    peak = _status("VmHWM")
    del kept
    return peak - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def in_own_process(module: str, *arguments: object) -> Any:
    """What `python -m module` says, as JSON, in the last line that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def write_result(path: Path | None, result: Mapping[str, Any], *, packages: Iterable[str]) -> None:
    """The result as JSON, with the device, the processor, the packages' versions and the date.

    path: None where nobody asked for the file.
    """
    if path is None:
        return
    import jax

    place = {
        "device": jax.devices()[0].device_kind,
        "cpus": os.cpu_count(),
        "machine": _processor(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**result, **place}, indent=2) + "\n")


def _processor() -> str:
    """The processor's name and its vector instructions, which times depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine()
    lines = cpuinfo.read_text().splitlines()
    facts = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    facts = {key.strip(): value for key, value in facts.items()}
    wide = "with" if "avx512f" in facts.get("flags", "") else "without"
    return f"{facts.get('model name', 'unknown processor')}, {wide} AVX-512"
