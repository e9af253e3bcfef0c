"""What devices can do at their best, as their makers state it, and what a compiled step asks."""

import os
from typing import Any, NamedTuple

import jax

from glfa_jax.training.program import Program


class Limits(NamedTuple):
    """operations: dense bfloat16, a second. memory: bytes, on TPUs what the compiler may use.
    bandwidth: of the memory, bytes a second. link: to all other devices together, bytes a second.
    """

    operations: float
    memory: float
    bandwidth: float
    link: float


LIMITS = {
    "A100": Limits(312e12, 80e9, 2.04e12, 600e9),
    "H100": Limits(989e12, 80e9, 3.35e12, 900e9),
    "H200": Limits(989e12, 141e9, 4.8e12, 900e9),
    "TPU v4": Limits(275e12, 30.75 * 2**30, 1.23e12, 300e9),
    "TPU v5 lite": Limits(197e12, 15.75 * 2**30, 0.82e12, 200e9),
    "TPU v5": Limits(459e12, 95.74 * 2**30, 2.77e12, 600e9),
    "TPU v6 lite": Limits(918e12, 31.25 * 2**30, 1.64e12, 448e9),
}


def limits(device: Any) -> Limits | None:
    """Of a device of this kind; None where they are not listed."""
    hits = [name for name in LIMITS if name in device.device_kind]
    return LIMITS[max(hits, key=len)] if hits else None


def capacity(device: Any, *, here: bool, sharing: int) -> float | None:
    """Bytes that a device has: one that is here says so itself, CPUs share the machine's."""
    if here and device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / sharing
    own = (device.memory_stats() or {}).get("bytes_limit") if here else None
    best = limits(device)
    return own or (best.memory if best else None)


class Costs(NamedTuple):
    """Of one run of a program on one device, as XLA estimates them; what is computed anew in the
    backward pass counts.
    """

    operations: float
    bytes_accessed: float
    exchanges: dict[str, dict[str, float]]  # kind to count and bytes received


def costs(compiled: jax.stages.Compiled) -> Costs:
    counted: Any = compiled.cost_analysis() or {}
    counted = counted[0] if isinstance(counted, list) else counted
    program = Program(compiled.as_text() or "")
    repeated, traffic = program.repeated()  # XLA counts one pass of a loop
    return Costs(
        counted.get("flops", 0.0) + repeated,
        counted.get("bytes accessed", 0.0) * traffic,
        program.exchanges(),
    )
