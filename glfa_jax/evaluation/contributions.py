"""What was measured of every clip, put together: means, intervals over clips, the test of maps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from glfa_jax.evaluation.explaining import BY, ORDERS, Explaining
from glfa_jax.explain import faithful

RESAMPLES, LEVEL = 2000, 0.95


def results(
    explaining: Explaining, found_maps: Mapping[str, dict[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """Of every subject and score, as contributions.json holds it.

    found_maps: `Explaining.maps` of each subject.
    """
    found = []
    for subject, maps in found_maps.items():
        deletion = explaining.deletion(subject)
        for k, name in enumerate(explaining.names):
            own = {key: maps[key][:, k] for key in ("full", *BY)}
            curves = {key: deletion[key][:, k] for key in ("own", "own_shares", "random")}
            found.append(
                {"subject": subject, "score": name}
                | _of(explaining, own, curves, random_shares=deletion["random_shares"])
            )
    return found


def _of(
    explaining: Explaining,
    own: dict[str, np.ndarray],
    curves: dict[str, np.ndarray],
    *,
    random_shares: Float[np.ndarray, "orders n"],
) -> dict[str, Any]:
    seed, pixels = explaining.settings.seed, explaining.areas.pixels
    grid = np.linspace(0, 1, curves["own"].shape[-1])
    under = faithful.area_under(curves["own"], shares=curves["own_shares"])  # clips, ORDERS
    random = faithful.area_under(curves["random"], shares=random_shares)  # clips, orders
    drawn = _on(grid, curves["random"], shares=random_shares)
    agreement = np.corrcoef([own[by].mean(0) / pixels for by in BY]) if len(pixels) > 1 else None
    found: dict[str, Any] = {
        "clips": len(own["full"]),
        "full": intervals(own["full"], seed=seed),
        "nothing": intervals(curves["random"][:, 0, -1], seed=seed),
        "agreement": None if agreement is None else _number(agreement[0, 1]),
        "shares": grid.tolist(),
        "random": {
            "areas": random.mean(0).tolist(),
            "scores": drawn.mean((0, 1)).tolist(),
            "low": drawn.mean(0).min(0).tolist(),
            "high": drawn.mean(0).max(0).tolist(),
        },
    }
    for by in BY:
        high, low = (ORDERS.index((by, end)) for end in ("highest", "lowest"))
        verdict = faithful.verdict(under[:, high], lowest=under[:, low], random=random)
        found[by] = intervals(own[by], seed=seed) | {
            "sum": intervals(own[by].sum(1), seed=seed),
            "deletion": {
                "highest": _curve(grid, curves, high),
                "lowest": _curve(grid, curves, low),
                "area_highest": verdict.highest,
                "area_lowest": verdict.lowest,
                "area_random": verdict.random,
                "p_value": verdict.p_value,
                "faithful": verdict.kept,
            },
        }
    return found


def intervals(values: Float[np.ndarray, "... areas"], *, seed: int) -> dict[str, Any]:
    """Mean over clips, and the percentile bootstrap interval of it: low, high."""
    clips = len(values)
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), RESAMPLES)
    means = counts @ values.reshape(clips, -1).astype(np.float64) / clips
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    shape = values.shape[1:]
    return {
        key: x.reshape(shape).tolist()
        for key, x in (("mean", values.mean(0, np.float64)), ("low", low), ("high", high))
    }


def _curve(grid: np.ndarray, curves: dict[str, np.ndarray], order: int) -> list[float]:
    """Mean over clips."""
    scores, shares = curves["own"][:, order], curves["own_shares"][:, order]
    return _on(grid, scores, shares=shares).mean(0).tolist()


def _on(
    grid: Float[np.ndarray, " m"],
    scores: Float[np.ndarray, "*b n"],
    *,
    shares: Float[np.ndarray, "*b n"],
) -> Float[np.ndarray, "*b m"]:
    """Every curve at the same shares of the cortex."""
    rows = zip(
        scores.reshape(-1, scores.shape[-1]),
        np.broadcast_to(shares, scores.shape).reshape(-1, scores.shape[-1]),
        strict=True,
    )
    found = [np.interp(grid, share, score) for score, share in rows]
    return np.reshape(found, (*scores.shape[:-1], len(grid)))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
