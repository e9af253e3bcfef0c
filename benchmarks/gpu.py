"""Everything that only a GPU can show, in one command under ten minutes and one file.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json

The tests that need a GPU, the local layer, attention by einsum and by a kernel, the training step
and sampling beside torch at full size, each in a process of its own. What fails or takes too long
is named in the result and costs nothing of the others.
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

    name: str
    command: tuple[str, ...]
    seconds: int
    writes: bool = True


_FULL = ("--size", "full", "--dtype", "bfloat16", "--rounds", "3")
PARTS = (
    Part("tests", ("pytest", "-q", "-m", "gpu"), 120, writes=False),
    Part("local layer", ("benchmarks.local_conv", "--frames", "16", "--rounds", "5"), 60),
    Part("attention", ("benchmarks.attention", "--rounds", "5"), 60),
    Part("training step", ("benchmarks.train_step", *_FULL, "--device-batch", "8"), 180),
    Part("sampling", ("benchmarks.sampling", *_FULL, "--batch", "16"), 170),
)


def run(part: Part, folder: Path) -> dict[str, Any]:
    """Its result, how it ended and how long it took."""
    place = folder / f"{part.name.replace(' ', '-')}.json"
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
    print(f"== {part.name}\n{said}", flush=True)
    return {
        "command": " ".join(("python", "-m", *part.command)),
        "ended": ended,
        "seconds": round(time.monotonic() - start, 1),
        "last_lines": said.splitlines()[-3:],
        "result": json.loads(place.read_text()) if place.exists() else None,
    }


def main() -> int:
    given = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {part.name: run(part, Path(folder)) for part in PARTS}
    rows = ((name, one["ended"], one["seconds"]) for name, one in found.items())
    print(table(("part", "ended", "seconds"), rows))
    write_result(given.json, {"parts": found}, packages=("jax", "jaxlib", "flax"))
    return int(any(one["ended"] != 0 for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
