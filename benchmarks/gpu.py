"""Everything that only a GPU can show, in one command under ten minutes and one file.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json
    python -m benchmarks.gpu --parts wan-step wan-sampling --json benchmarks/results/gpu_wan.json

The tests that need a GPU, the local layer, attention by einsum and by a kernel, the training step
and sampling beside torch at full size, each in a process of its own; with Wan, which would take
longer, by the second command. What fails or takes too long is named in the result and costs nothing
of the others.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measuring import parser, table, write_result


class Part(NamedTuple):
    """A command and the seconds it may take; with `writes` it leaves its result as JSON."""

    command: tuple[str, ...]
    seconds: int
    writes: bool = True


_FULL = ("--size", "full", "--dtype", "bfloat16", "--rounds", "3")
PARTS = {
    "tests": Part(("pytest", "-q", "-m", "gpu"), 120, writes=False),
    "local-layer": Part(("benchmarks.local_conv", "--frames", "16", "--rounds", "5"), 60),
    "attention": Part(("benchmarks.attention", "--rounds", "5"), 60),
    "step": Part(("benchmarks.train_step", *_FULL, "--device-batch", "8"), 180),
    "sampling": Part(("benchmarks.sampling", *_FULL, "--batch", "16"), 170),
    "wan-step": Part(
        (
            *("benchmarks.train_step", *_FULL, "--device-batch", "8", "--generator", "wan"),
            *("--variants", "frozen-half", "compile+frozen-half"),
        ),
        280,
    ),
    "wan-sampling": Part(
        (
            *("benchmarks.sampling", *_FULL, "--batch", "8", "--generator", "wan"),
            *("--variants", "eager", "compile"),
        ),
        280,
    ),
}


def run(name: str, folder: Path) -> dict[str, Any]:
    """A part's result, how it ended and how long it took."""
    part, place = PARTS[name], folder / f"{name}.json"
    keep = ("--json", str(place)) if part.writes else ()
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", *part.command, *keep],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=part.seconds,
        )
        ended, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        said = output if isinstance(output, str) else output.decode(errors="replace")
        ended = f"stopped after {part.seconds} s"
    print(f"== {name}\n{said}", flush=True)
    return {
        "command": " ".join(("python", "-m", *part.command)),
        "ended": ended,
        "seconds": round(time.monotonic() - start, 1),
        "last_lines": said.splitlines()[-3:],
        "result": json.loads(place.read_text()) if place.exists() else None,
    }


def main() -> int:
    made = parser(__doc__)
    usual = [name for name in PARTS if not name.startswith("wan")]
    made.add_argument("--parts", nargs="+", choices=PARTS, default=usual)
    given = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: run(name, Path(folder)) for name in given.parts}
    rows = ((name, one["ended"], one["seconds"]) for name, one in found.items())
    print(table(("part", "ended", "seconds"), rows))
    write_result(given.json, {"parts": found}, packages=("jax", "jaxlib", "flax"))
    return int(any(one["ended"] != 0 for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
