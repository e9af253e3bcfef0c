"""Every mesh against one device.

    python -m tests.stages.matrix OUT             runs all stages on all meshes, then compares
    python -m tests.stages.matrix OUT --compare   only compares what is there

Prints, for every mesh and stage, the largest difference of parameters, of losses and other values
that are logged, and fails above 1e-5. The suite runs some of the meshes.
"""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.stages.tiny import STAGES

ROOT = Path(__file__).parents[2]
LIMIT = 1e-5
# data,fsdp,frame on eight devices of one process, and on twice four of two
ONE = "1,1,1"
EIGHT = ("8,1,1", "4,2,1", "1,8,1", "4,1,2", "2,2,2")
ACROSS = ("8,1,1", "4,2,1", "1,8,1", "4,1,2", "2,2,2")
# Less time in the compiler; the same for all that is compared.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def start(out: Path, place: str, devices: int, *runs: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.stages.tiny", str(out), place, *runs]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": FLAGS}
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_two(out: Path, *runs: str) -> list[subprocess.Popen]:
    port = free_port()
    return [start(out, f"{i}/2@127.0.0.1:{port}", 4, *runs) for i in range(2)]


def wait(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=1800)
        assert process.returncode == 0, errors[-3000:]


class Difference(NamedTuple):
    """Largest of all parameters, and of all logged values; relative to these where above 1."""

    params: float
    logged: float


def difference(found: Path, expected: Path) -> Difference:
    with np.load(found) as ours, np.load(expected) as theirs:
        assert set(ours.files) == set(theirs.files)
        largest = {True: 0.0, False: 0.0}
        for name in ours.files:
            a, b = ours[name].astype(np.float64), theirs[name].astype(np.float64)
            assert a.shape == b.shape, name
            logged = name.startswith("log ")
            scale = np.maximum(np.abs(b), 1) if logged else 1.0
            largest[logged] = max(largest[logged], float(np.max(np.abs(a - b) / scale)))
    return Difference(largest[False], largest[True])


def compare(out: Path) -> bool:
    """Prints a table; whether all is below the limit."""
    right = True
    print("| data,fsdp,frame | processes | stage | parameters | logged values |")
    print("| --- | --- | --- | --- | --- |")
    for count, meshes in ((1, EIGHT), (2, ACROSS)):
        for mesh in meshes:
            for name in STAGES:
                found = difference(out / f"{name}-{mesh}-{count}.npz", out / f"{name}-{ONE}-1.npz")
                print(f"| {mesh} | {count} | {name} | {found.params:.1e} | {found.logged:.1e} |")
                right = right and max(found) <= LIMIT
    print(f"all within {LIMIT}" if right else f"NOT all within {LIMIT}")
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", action="store_true", help="run nothing")
    args = parser.parse_args()
    if not args.compare:
        args.out.mkdir(parents=True)
        wait(start(args.out, "0/1", 1, *(f"{name}-{ONE}" for name in STAGES)))
        wait(start(args.out, "0/1", 8, *(f"{name}-{mesh}" for mesh in EIGHT for name in STAGES)))
        across = [f"{name}-{mesh}" for mesh in ACROSS for name in STAGES]
        wait(*start_two(args.out, *across))
    return int(not compare(args.out))


if __name__ == "__main__":
    sys.exit(main())
