"""Scores made by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from glfa_jax.results import ClipKey, ClipScores, Metric, Overall, Protocol, Sampling, Scores

PROTOCOL = Protocol("cross-subject", ("01", "02"), ("03",), "strict", "data-a", "data-a")
TRAINING = {"contrast.steps": "1500", "cotrain.glfa_scale": "1.0"}
SAMPLING = Sampling("dpm++", 25, 9.0)
JUDGES = {"video-classifier": "aa", "image-classifier": "bb"}
WAYS = Metric("exact", "higher", 0.75, "")
SSIM = Metric("scikit-image", "higher", None, "")


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
        "judges": JUDGES,
        "metrics": metrics,
        "clips": tuple(ClipScores("03", i, row) for i, row in enumerate(rows)),
        "missing": (),
        "unscanned": (),
        "overall": {
            name: Overall("VideoMAE features", "lower", value)
            for name, value in (overall or {}).items()
        },
    }
    return Scores(**fields | changes)


def clip(number: int, subject: str = "03") -> ClipKey:
    return ClipKey(subject, number)
