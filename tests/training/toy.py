"""A tiny training run that uses everything the loop offers; also a program, to be killed."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from glfa_jax.config import Hardware, Stage
from glfa_jax.training.loop import train
from glfa_jax.training.optim import Group
from glfa_jax.training.state import TrainState

WIDTH, ROWS = 5, 8
GROUPS = (Group("scale$", 10.0), Group("otherwise", 1.0))


class Batches:
    """Rows that depend on the position only; remembers what it handed out."""

    def __init__(self, *, poison: int | None = None, pause: float = 0.0):
        self.index, self.seen = 0, []
        self._poison, self._pause = poison, pause

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.index)
        x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
        if self.index == self._poison:
            x[0, 0] = np.nan
        self.seen.append(self.index)
        self.index += 1
        time.sleep(self._pause)
        return {"x": x, "y": x.sum(axis=1, keepdims=True) ** 2}

    def get_state(self) -> dict[str, int]:
        return {"next_index": self.index}

    def set_state(self, state: dict[str, int]) -> None:
        self.index = state["next_index"]


def init(key: jax.Array, *, hidden: int = 16) -> dict:
    keys = jax.random.split(key, 2)
    return {
        "layers.0": {"kernel": jax.random.normal(keys[0], (WIDTH, hidden)) * 0.3},
        "layers.1": {"kernel": jax.random.normal(keys[1], (hidden, 1)) * hidden**-0.5},
        "scale": jnp.ones(()),
    }


def frozen() -> dict:
    return {"embed": {"kernel": np.eye(WIDTH, dtype=np.float32) * 0.5}}


def loss_fn(trainable: dict, frozen: dict, batch: dict, key: jax.Array) -> tuple:
    """A perceptron with dropout, so that a wrong key changes the numbers."""
    x = jnp.tanh(batch["x"] @ frozen["embed"]["kernel"] @ trainable["layers.0"]["kernel"])
    x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x * 2, 0)
    y = x @ trainable["layers.1"]["kernel"] * trainable["scale"]
    loss = jnp.mean((y - batch["y"]) ** 2)
    return loss, {"output": jnp.mean(y)}


def stage(*, steps: int, **options) -> Stage:
    return Stage(
        **{
            "steps": steps,
            "batch_size": ROWS,
            "learning_rate": 1e-2,
            "warmup_steps": 3,
            "save_every": 2,
            "log_every": 1,
            **options,
        }
    )


def run(folder: Path, *, steps: int, batches: Batches | None = None, **options) -> TrainState:
    call = {
        "seed": 3,
        "fingerprint": {"data": "toy"},
        "init": init,
        "eval_hook": None,
        "hardware": Hardware(),
    }
    call |= {key: options.pop(key) for key in list(options) if key in call}
    return train(
        name="toy",
        folder=folder,
        stage=stage(steps=steps, **options),
        frozen=frozen(),
        loss_fn=loss_fn,
        groups=GROUPS,
        batches=batches or Batches(),
        **call,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), steps=int(sys.argv[2]), batches=Batches(pause=float(sys.argv[3])))
