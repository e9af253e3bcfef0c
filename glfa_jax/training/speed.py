"""How much of the device a step uses."""

from typing import Any

import jax

# Dense bfloat16 operations a second of one device, as its maker states them.
PEAK = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def peak(device: jax.Device) -> float | None:
    """Operations a second of a device at its best; None where nobody states them."""
    hits = [name for name in PEAK if name in device.device_kind]
    return PEAK[max(hits, key=len)] if hits else None


def operations(program: Any, *, repeats: int) -> float | None:
    """Floating-point operations of a compiled step on one device, as XLA counts them.

    What is computed anew in the backward pass counts; the body of a loop counts once, so `repeats`
    is how often the body runs that is nearly all of the step.
    """
    counted = program.cost_analysis() or {}
    flops = (counted[0] if isinstance(counted, list) else counted).get("flops")
    return None if flops is None else float(flops) * repeats
