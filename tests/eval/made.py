"""Scores made by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glfa_jax.results import ClipKey, ClipScores, Metric, Overall, Protocol, Sampling, Scores

PROTOCOL = Protocol("cross-subject", ("01", "02"), ("03",), "strict", "data-a", "data-a")
TRAINING = {"contrast.steps": "1500", "cotrain.glfa_scale": "1.0"}
SAMPLING = Sampling("dpm++", 25, 9.0)
WAYS = Metric("exact", "higher", 0.75, "")
SSIM = Metric("scikit-image", "higher", None, "")
PSNR = Metric("capped at 100", "higher", None, "dB")
EPE = Metric("Farneback", "lower", None, "px")


def scores(
    values: Mapping[str, Sequence[float]],
    *,
    method: str,
    seed: int = 0,
    metrics: Mapping[str, Metric] | None = None,
    overall: Mapping[str, float] | None = None,
    **changes: Any,
) -> Scores:
    """Values of each metric, clip after clip of subject 03."""
    metrics = {name: WAYS for name in values} if metrics is None else metrics
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    fields: dict[str, Any] = {
        "run": f"{method} {seed}",
        "method": method,
        "seed": seed,
        "protocol": PROTOCOL,
        "training": TRAINING,
        "sampling": SAMPLING,
        "metrics": metrics,
        "clips": tuple(ClipScores("03", i, row) for i, row in enumerate(rows)),
        "missing": (),
        "overall": {
            name: Overall("VideoMAE features", "lower", value)
            for name, value in (overall or {}).items()
        },
    }
    return Scores(**fields | changes)


def clip(number: int, subject: str = "03") -> ClipKey:
    return ClipKey(subject, number)


def study(method: str, *, gain: float, seed: int = 0, clips: int = 40, **changes: Any) -> Scores:
    """Runs alike: clips are as hard under every method; a `gain` of 0.05 is seen, 0 is not."""
    hard = np.random.default_rng(0).normal(0, 1, clips)
    rng = np.random.default_rng([seed, *method.encode()])

    def around(mean: float, spread: float, up: float) -> np.ndarray:
        return mean + spread * hard + up + rng.normal(0, spread / 2, clips) + rng.normal(0, 0.005)

    values = {
        "video 2-way": np.clip(around(0.82, 0.04, gain), 0, 1),
        "SSIM": around(0.16, 0.05, gain / 2),
        "PSNR": around(17.2, 1.1, 5 * gain),
        "EPE": around(3.1, 0.4, -5 * gain),
    }
    metrics = dict(zip(values, (WAYS, SSIM, PSNR, EPE), strict=True))
    distance = {"Fréchet distance": 100 - 200 * gain + float(rng.normal(0, 2))}
    return scores(
        values, method=method, seed=seed, metrics=metrics, **{"overall": distance} | changes
    )
