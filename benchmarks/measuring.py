"""What benchmarks share: calls timed in turns, and a record of where a figure was measured."""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from glfa_jax.files import write_atomically


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


def write_result(path: Path, result: Mapping[str, Any], *, packages: Iterable[str]) -> None:
    """The result as JSON, with the device, the processor, the packages' versions and the date."""
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
