"""Whether the penalty that LEA chooses on training data is a good one for the test subject.

    python -m benchmarks.lea_penalty runs/simulated/LEA/seed0/config.yaml --json OUT

Of a finished run by LEA: mean correlation of predicted with true caption tokens and image
embeddings, between the training subjects (what the choice went by) and on the test subjects' test
clips (which it did not see), for every penalty that it chooses from and for the original's 500.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax import config, system
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.files import read_object
from glfa_jax.ops.ridge import Ridge
from glfa_jax.ops.ridge_penalty import SHARES, alpha_of
from glfa_jax.stages import lea

ORIGINAL = 500.0  # of LEA's authors
AT_ONCE = 40


def samples(
    settings: config.Config, store: Store, split: Split, subjects: tuple[str, ...]
) -> tuple[Float[ndarray, "n p"], Float[ndarray, "n q"]]:
    """Features and targets of every window of the subjects."""
    targets = lea.Targets(settings, store, split=split)
    tokens, width = targets.shape
    module = system.lea(settings, tokens=tokens, token_dim=width, clip_dim=targets.clip_dim)
    features = lea.features_of(settings, module, lea.encoder_of(settings, module))
    present = store.present(split, subjects=subjects)
    seen, shown = [], []
    for start in range(0, len(present), AT_ONCE):
        clips = np.arange(start, min(start + AT_ONCE, len(present)))
        row, subject = np.nonzero(present[clips])
        seen.append(features(store.fmri(split, clips, subjects=subjects))[row, subject])
        shown.append(targets.of(clips)[row])
    return np.concatenate(seen), np.concatenate(shown)


def summed(x: Float[ndarray, "n p"], y: Float[ndarray, "n q"]) -> Ridge:
    found = Ridge(features=x.shape[1], targets=y.shape[1])
    found.add(x, targets=y)
    return found


def measure(settings: config.Config) -> dict:
    store, protocol = Store.open(settings.data.store), settings.protocol
    train = summed(*samples(settings, store, "train", protocol.train_subjects))
    test = summed(*samples(settings, store, "test", protocol.test_subjects))

    def on_test(alpha: float) -> float:
        return round(float(np.nanmean(test.correlations(train.solve(alpha=alpha).weights))), 4)

    place = system.stage_folder(settings, lea.NAME) / lea.PENALTY
    chosen = read_object(place)
    return {
        "samples": train.count,
        "chosen": {"alpha": chosen["alpha"], "test": on_test(chosen["alpha"])},
        "original": {"alpha": ORIGINAL, "test": on_test(ORIGINAL)},
        "shares": [
            {
                "share": share,
                "alpha": float(f"{alpha_of(share, train):.4g}"),
                "between training subjects": chosen["correlations"].get(f"{share:g}"),
                "test": on_test(alpha_of(share, train)),
            }
            for share in SHARES
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="of the run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(config.load(given.config))
    print(json.dumps(found, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
