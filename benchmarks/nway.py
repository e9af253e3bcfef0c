"""Exact n-way against trials drawn one by one, side by side: time and agreement.

    python -m benchmarks.nway --json benchmarks/results/nway.json

The trials are those of the published code: for every clip and trial, numpy draws n - 1 classes
without replacement from those that are no labels, each label is ranked among them, and a trial
succeeds when any label comes first. Both take the same made-up scores and take turns within every
round; a time is the median over rounds, for all clips, and the exact one's that of a call among 50
in a row: it is about a millisecond, which others on the machine easily disturb. Prints a table;
fails where the means differ by more than four standard errors of the trials.
"""

import sys
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measuring import median_seconds, parser, table, write_result
from glfa_jax.metrics.nway import nway_exact, top_classes

AGREEMENT = 4.0  # standard errors
CALLS = 50  # of the exact one in a row


def make_inputs(clips: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the generated clips, related to the true ones', and the labels."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((clips, classes))
    logits = 0.5 * truth + rng.standard_normal(truth.shape)
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), top_classes(truth)


def by_trials(
    probabilities: np.ndarray, *, labels: np.ndarray, n: int, trials: int, seed: int
) -> np.ndarray:
    """Share of successful trials of each clip, top-1, in plain loops."""
    rng = np.random.default_rng(seed)
    shares = []
    for scores, right in zip(probabilities, labels, strict=True):
        others = np.array([c for c in range(len(scores)) if c not in right])
        successes = 0
        for _ in range(trials):
            drawn = scores[rng.choice(others, n - 1, replace=False)]
            for label in right:
                ranking = np.argsort(-np.append(scores[label], drawn))
                if ranking[0] == 0:
                    successes += 1
                    break
        shares.append(successes / trials)
    return np.array(shares)


def compare(
    probabilities: np.ndarray, *, labels: np.ndarray, n: int, trials: int, rounds: int
) -> dict[str, Any]:
    exactly = partial(nway_exact, probabilities, labels=labels, n=n)
    drawing = partial(by_trials, probabilities, labels=labels, n=n, trials=trials, seed=0)
    exact, drawn = exactly(), drawing()
    error = float(np.sqrt((exact * (1 - exact)).sum() / trials) / len(exact))
    seconds = median_seconds(
        {"exact": lambda: [exactly() for _ in range(CALLS)], "trials": drawing}, rounds=rounds
    )
    seconds["exact"] /= CALLS
    return {
        "n": n,
        "milliseconds": {name: 1e3 * value for name, value in seconds.items()},
        "trials_over_exact": seconds["trials"] / seconds["exact"],
        "mean": {"exact": float(exact.mean()), "trials": float(drawn.mean())},
        "difference_in_standard_errors": float(drawn.mean() - exact.mean()) / error,
    }


def shown(rows: list[dict[str, Any]]) -> str:
    head = ["way", "exact, ms", "trials, ms", "ratio", "exact mean", "trials' mean", "apart"]
    lines = []
    for row in rows:
        ms, mean = row["milliseconds"], row["mean"]
        lines.append(
            [
                str(row["n"]),
                *(f"{ms[name]:.3g}" for name in ("exact", "trials")),
                f"{row['trials_over_exact']:.0f}x",
                *(f"{mean[name]:.4f}" for name in ("exact", "trials")),
                f"{row['difference_in_standard_errors']:+.1f} standard errors",
            ]
        )
    return table(head, lines)


def main(argv: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--clips", type=int, default=200)
    made.add_argument("--classes", type=int, default=400)
    made.add_argument("--ways", type=int, nargs="+", default=[2, 50])
    made.add_argument("--trials", type=int, default=100)
    args = made.parse_args(argv)
    probabilities, labels = make_inputs(args.clips, args.classes)
    rows = [
        compare(probabilities, labels=labels, n=n, trials=args.trials, rounds=args.rounds)
        for n in args.ways
    ]
    print(f"{args.clips} clips, {args.classes} classes, {args.trials} trials a clip")
    print(shown(rows))
    names = ("clips", "classes", "trials", "rounds")
    result = {name: getattr(args, name) for name in names} | {"rows": rows}
    write_result(args.json, result, packages=("numpy", "scipy"))
    apart = max(abs(row["difference_in_standard_errors"]) for row in rows)
    return int(apart > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
