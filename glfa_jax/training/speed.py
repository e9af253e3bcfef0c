"""What devices can do at their best, as their makers state it, and what a compiled step asks."""

from typing import Any, NamedTuple

import jax


class Limits(NamedTuple):
    """operations: dense bfloat16, a second. memory: bytes. bandwidth: of the memory, bytes a
    second. link: to all other devices together, bytes a second.
    """

    operations: float
    memory: float
    bandwidth: float
    link: float


LIMITS = {
    "A100": Limits(312e12, 80e9, 2.04e12, 600e9),
    "H100": Limits(989e12, 80e9, 3.35e12, 900e9),
    "H200": Limits(989e12, 141e9, 4.8e12, 900e9),
    "TPU v4": Limits(275e12, 32e9, 1.23e12, 300e9),
    "TPU v5 lite": Limits(197e12, 16e9, 0.82e12, 200e9),
    "TPU v5": Limits(459e12, 95e9, 2.77e12, 600e9),
    "TPU v6 lite": Limits(918e12, 32e9, 1.64e12, 448e9),
}


def limits(device: Any) -> Limits | None:
    """Of a device of this kind; None where they are not listed."""
    hits = [name for name in LIMITS if name in device.device_kind]
    return LIMITS[max(hits, key=len)] if hits else None


def costs(program: jax.stages.Compiled) -> dict[str, float]:
    """XLA's estimate for one device, such as `flops` and `bytes accessed`.

    What is computed anew in the backward pass counts; the body of a loop counts once.
    """
    counted: Any = program.cost_analysis() or {}
    return counted[0] if isinstance(counted, list) else counted
