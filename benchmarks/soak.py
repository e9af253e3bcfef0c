"""Kills a training run at random moments until it is through, and compares it with one left alone.

    python -m benchmarks.soak --kills 25 --json benchmarks/results/soak.json

Three starts of ten are killed while they start up, the others at a random moment of their training,
where every step is saved: so kills fall into start-up, steps and checkpoint writing alike. Fails
unless parameters, optimizer and losses are the same, bit for bit, and each of the three had kills.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import parser, write_result
from glfa_jax import config
from glfa_jax.training.logs import read_log
from glfa_jax.training.loop import train, use_compilation_cache
from glfa_jax.training.optim import OTHERWISE, Group
from glfa_jax.training.state import TrainState

WIDTH, ROWS, STEPS = 512, 8, 600


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


def run(folder: Path) -> TrainState:
    use_compilation_cache()
    return train(
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
    found = {"starting": 0, "in a step": 0, "writing a checkpoint": 0}
    rng = random.Random(0)
    slow = 3.0  # seconds from a start to its first step
    for number in range(1, kills + 1):
        logged, left = log_of(folder), unfinished(folder)
        begin, process = time.monotonic(), start(folder)
        if rng.random() < 0.3:
            end = begin + rng.uniform(0, slow)
            wait(process, lambda end=end: time.monotonic() > end)
        else:
            wait(process, lambda before=logged: bool(log_of(folder) - before))
            slow = time.monotonic() - begin
            end = time.monotonic() + rng.uniform(0, longest)
            wait(process, lambda end=end: time.monotonic() > end)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if unfinished(folder) - left:
            where = "writing a checkpoint"
        else:
            where = "in a step" if log_of(folder) - logged else "starting"
        found[where] += 1
        print(f"kill {number}: {where}, {len(read_log(folder))} steps logged", flush=True)
    return found


def wait(process: subprocess.Popen, done: Callable[[], bool]) -> None:
    while not done():
        if process.poll() is not None:
            raise SystemExit("a start ended by itself: give the run more steps")
        time.sleep(0.005)


def log_of(folder: Path) -> set[tuple[int, float]]:
    """Steps and when they were logged; those made anew have another time."""
    return {(line["step"], line["time"]) for line in read_log(folder)}


def unfinished(folder: Path) -> set[tuple[str, int]]:
    """Checkpoints that were being written, by this start or an earlier one."""
    parts = (folder / "checkpoints").glob("*.orbax-checkpoint-tmp*")
    return {(part.name, part.stat().st_ino) for part in parts}


def same(a: Path, b: Path) -> bool:
    """Every loss that was logged, and all that the last checkpoints hold."""
    losses = [[(x["step"], x["metrics"]["loss"]) for x in read_log(folder)] for folder in (a, b)]
    assert [step for step, _ in losses[0]] == list(range(1, STEPS + 1))
    states = [run(folder) for folder in (a, b)]  # finished, so only read back
    equal = jax.tree.map(np.array_equal, *states)
    return losses[0] == losses[1] and all(jax.tree.leaves(equal))


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--kills", type=int, default=25)
    made.add_argument("--longest", type=float, default=2.0, help="seconds that a start may train")
    made.add_argument("--train", type=Path, metavar="FOLDER", help="internal")
    args = made.parse_args()
    if args.train:
        run(args.train)
        return 0
    with tempfile.TemporaryDirectory() as root:
        alone, killed = Path(root) / "alone", Path(root) / "killed"
        run(alone)
        found = disturb(killed, args.kills, args.longest)
        if start(killed).wait():
            raise SystemExit("the last start failed")
        right = same(alone, killed) and all(found.values())
    print(f"{args.kills} kills ({found}): {'the same' if right else 'NOT the same'}, bit for bit")
    result = {"kills": found, "steps": STEPS, "same": right}
    write_result(args.json, result, packages=("jax", "jaxlib", "orbax-checkpoint"))
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
