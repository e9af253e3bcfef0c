"""Twenty steps of the autoencoder on real data, to be disturbed.

As a program: python -m tests.stages.lasting STORE FOLDER INDEX/COUNT@HOST:PORT DATA,FSDP,FRAME
DISTURBANCE, where it ends itself by SIGKILL in step 13 (`step`), or as it begins to write the
checkpoint of step 10 (`save`), or the last process is asked to stop in step 13 (`stop`) or cannot
read the checkpoint that it tries first (`blind`).
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from glfa_jax import config
from glfa_jax.cli import guarded
from glfa_jax.data import pipeline
from glfa_jax.data.store import Store
from glfa_jax.training import checkpoints, processes
from glfa_jax.training.checkpoints import Checkpoints
from glfa_jax.training.loop import train
from glfa_jax.training.sharding import make_mesh, process_share
from glfa_jax.training.state import TrainState
from tests.stages import tiny

STEPS, EVERY, LAST = 20, 5, 12
SIDE = 32  # of the maps in tests.data's store


class Disturbed:
    """A stream that disturbs its own process when it is asked for the batch after `LAST`."""

    def __init__(self, stream: Any, folder: Path, kind: str, share: tuple[int, int]):
        self._stream, self._folder, self._kind = stream, folder, kind
        self._last_process = share[0] == share[1] - 1
        self.get_state, self.set_state = stream.get_state, stream.set_state

    def __next__(self) -> Any:
        taken = self.get_state()["next_index"]
        if self._kind == "step" and taken == LAST:
            while not (self._folder / "checkpoints" / "10").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "stop" and taken >= LAST:
            if taken == LAST and self._last_process:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.4)  # the processes agree on a step while they train
        return next(self._stream)


def kill_while_saving(step: int) -> None:
    save = Checkpoints.save

    def doomed(self: Checkpoints, number: int, **options: Any) -> None:
        save(self, number, **options)
        if number == step:  # it is written in the background
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.save = doomed  # type: ignore[method-assign]


def fail_to_read_once() -> None:
    reader = checkpoints.ocp.PyTreeCheckpointHandler
    restore = reader.restore

    def failing(*_: Any, **__: Any) -> None:
        reader.restore = restore  # type: ignore[method-assign]
        raise OSError("unreadable from here")

    reader.restore = failing  # type: ignore[method-assign]


def run(store: Store, folder: Path, *, hardware: config.Hardware, kind: str = "") -> TrainState:
    given = tiny.pretraining(SIDE)
    del given["make"]
    index, count = share = process_share(make_mesh(hardware.mesh))
    stream = pipeline.volumes(
        store,
        subjects=("01", "02"),
        batch_size=tiny.ROWS,
        seed=2,
        process_index=index,
        process_count=count,
    )
    return train(
        name="lasting",
        folder=folder,
        stage=config.Stage(
            **tiny.OPTIONS | {"steps": STEPS, "save_every": EVERY, "log_every": 1, "keep": 4}
        ),
        seed=1,
        batches=Disturbed(stream, folder, kind, share),
        fingerprint={"data": stream.fingerprint},
        hardware=hardware,
        **given,
    )


def main(store: str, folder: str, place: str, sizes: str, kind: str) -> int:
    where = tiny.place_of(place)
    hardware = config.Hardware(mesh=tiny.mesh_of(sizes), shard_from_bytes=0)
    if kind == "save":
        kill_while_saving(10)
    if kind == "blind" and where.index == (where.count or 0) - 1:
        fail_to_read_once()

    def work() -> None:
        processes.start(where)  # in here, as commands do it: JAX is to hear of SIGTERM
        run(Store.open(store), Path(folder), hardware=hardware, kind=kind)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
