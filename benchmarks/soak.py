"""Kills a training run at random moments until it is through, and compares it with one left alone.

    python -m benchmarks.soak --kills 25 --json benchmarks/results/soak.json

Each start may train for a random time before SIGKILL, so that kills fall into start-up, steps and
checkpoint writing alike (every step is saved). Fails unless parameters, optimizer and losses are
the same, bit for bit.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import write_result
from glfa_jax import config
from glfa_jax.training.checkpoints import restore_params
from glfa_jax.training.logs import read_log
from glfa_jax.training.loop import train, use_compilation_cache
from glfa_jax.training.optim import OTHERWISE, Group

WIDTH, ROWS, STEPS = 512, 8, 120


class Batches:
    """Random rows that depend on the position only."""

    next_index = 0

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.next_index)
        self.next_index += 1
        time.sleep(0.05)
        return {"x": rng.standard_normal((ROWS, WIDTH), np.float32)}

    def get_state(self) -> dict[str, int]:
        return {"next_index": self.next_index}

    def set_state(self, state: dict[str, int]) -> None:
        self.next_index = state["next_index"]


def init(key: jax.Array) -> dict:
    keys = jax.random.split(key, 4)
    return {str(i): jax.random.normal(k, (WIDTH, WIDTH)) * WIDTH**-0.5 for i, k in enumerate(keys)}


def loss(params: dict, _: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
    x = batch["x"]
    for weight in params.values():
        x = jnp.tanh(x @ weight)
    x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)
    return jnp.square(x - batch["x"]).mean(), {}


def run(folder: Path) -> None:
    use_compilation_cache()
    train(
        name="soak",
        folder=folder,
        stage=config.Stage(
            steps=STEPS, batch_size=ROWS, learning_rate=1e-3, save_every=1, log_every=1
        ),
        seed=0,
        init=init,
        frozen={},
        loss_fn=loss,
        groups=(Group(OTHERWISE, 1.0),),
        batches=Batches(),
        fingerprint={},
        hardware=config.Hardware(),
    )


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.soak", "--train", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def disturb(folder: Path, kills: int, longest: float) -> dict[str, int]:
    """Kills that many starts; what was under way when they fell."""
    found = {"before the first step": 0, "in a step": 0, "writing a checkpoint": 0}
    rng = random.Random(0)
    done = 0
    while done < kills:
        process = start(folder)
        before = len(read_log(folder))
        deadline = time.monotonic() + rng.uniform(0.5, longest)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is not None:
            raise SystemExit(f"ended by itself after {done} kills: make it longer")
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
        writing = any((folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
        stepped = len(read_log(folder)) > before
        where = "writing a checkpoint" if writing else "in a step" if stepped else None
        found[where or "before the first step"] += 1
        print(
            f"kill {done}: {where or 'before the first step'}, {len(read_log(folder))} steps logged"
        )
    return found


def same(a: Path, b: Path) -> bool:
    losses = [[line["metrics"]["loss"] for line in read_log(x)] for x in (a, b)]
    params = [restore_params(x) for x in (a, b)]
    equal = jax.tree.map(np.array_equal, *params)
    return losses[0] == losses[1] and all(jax.tree.leaves(equal))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--longest", type=float, default=9.0, help="seconds a start may live")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="internal")
    args = parser.parse_args()
    if args.train:
        run(args.train)
        return 0
    with tempfile.TemporaryDirectory() as root:
        alone, killed = Path(root) / "alone", Path(root) / "killed"
        run(alone)
        found = disturb(killed, args.kills, args.longest)
        if start(killed).wait():
            raise SystemExit("the last start failed")
        right = same(alone, killed)
    print(f"{args.kills} kills ({found}): {'the same' if right else 'NOT the same'}, bit for bit")
    if args.json:
        result = {"kills": found, "steps": STEPS, "same": right}
        write_result(args.json, result, packages=("jax", "jaxlib", "orbax-checkpoint"))
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
