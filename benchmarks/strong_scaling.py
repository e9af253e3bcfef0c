"""Strong scaling on paper: one training step of fixed size, compiled for 4 to 256 TPU chips.

    pip install 'glfa_jax[tpu]'
    python -m benchmarks.strong_scaling --json benchmarks/results/strong_scaling.json \
        --plot docs/strong_scaling.png

Nothing runs: work and exchange of a chip are read from the programs that the TPU compiler makes, in
ten minutes and 5 GB a slice.
Stage 2 of a mid-size model on 128 windows (64 clips, two subjects). Up to 64 chips every chip has
clips of its own; beyond, four chips share the frames of each.
"""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import parser, write_result
from benchmarks.measuring import table as markdown
from benchmarks.models import small_unet

ROOT = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")
UNET = small_unet(128, 256, groups=32, head=64, condition=256)
SIZE = {
    "encoder.width": 256,
    "encoder.depth": 6,
    "encoder.num_heads": 4,
    "data.frames": 8,
    "cotrain.batch_size": 128,
    "hardware.attention": "einsum",  # a kernel computes anew, which would count as work
}
# Chips to the slice of TPU v5e and the mesh: data, fsdp, frame.
SLICES = {
    4: ("v5e:2x2", (1, 4, 1)),
    16: ("v5e:4x4", (4, 4, 1)),
    64: ("v5e:8x8", (16, 4, 1)),
    256: ("v5e:16x16", (16, 4, 4)),
}


def compiled(chips: int, folder: Path) -> dict[str, Any]:
    """The report of `train.cotrain --compile-only`."""
    topology, mesh = SLICES[chips]
    options = SIZE | {"foundation": folder / "foundation"}
    options |= {
        f"hardware.mesh.{axis}": size
        for axis, size in zip(("data", "fsdp", "frame"), mesh, strict=True)
    }
    report = folder / f"{chips}.json"
    command = [sys.executable, "-m", "train.cotrain", "--config", "configs/wen2018.yaml"]
    command += [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    command += ["--compile-only", topology, "--report", str(report)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"{topology}: could not be compiled")
    return json.loads(report.read_text())


def table(reports: dict[int, dict[str, Any]]) -> str:
    """Markdown."""
    first = min(reports)
    work = first * reports[first]["operations"]
    head = ("chips", "data x fsdp x frame", "Tflop a chip", "of ideal", "GB of traffic")
    head += ("MB received", "step no shorter than")
    lines = []
    for chips, found in sorted(reports.items()):
        mesh = " x ".join(map(str, found["mesh"].values()))
        received = sum(kind["bytes"] for kind in found["collectives"].values())
        ideal = work / (chips * found["operations"])
        amounts = f"{found['operations'] / 1e12:.3f}", f"{ideal:.2f}"
        traffic = f"{found['bytes_accessed'] / 1e9:.1f}", f"{received / 1e6:.0f}"
        lines.append((chips, mesh, *amounts, *traffic, f"{1e3 * found['least_step']:.1f} ms"))
    return markdown(head, lines)


def plot(reports: dict[int, dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    chips = sorted(reports)
    places = [str(n) for n in chips]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    work = [reports[n]["operations"] / 1e12 for n in chips]
    left.plot(places, work, "o-", label="compiled program")
    left.plot(places, [work[0] * chips[0] / n for n in chips], "--", label="ideal")
    left.set(yscale="log", xlabel="chips", ylabel="Tflop a chip and step")
    left.legend()
    kinds = sorted({kind for found in reports.values() for kind in found["collectives"]})
    below = [0.0] * len(chips)
    for kind in kinds:
        sizes = [reports[n]["collectives"].get(kind, {"bytes": 0.0})["bytes"] / 1e6 for n in chips]
        right.bar(places, sizes, bottom=below, label=kind)
        below = [a + b for a, b in zip(below, sizes, strict=True)]
    right.set(xlabel="chips", ylabel="MB received by a chip and step")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--chips", type=int, nargs="+", choices=SLICES, default=list(SLICES))
    made.add_argument("--plot", type=Path)
    arguments = made.parse_args()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    reports: dict[int, dict[str, Any]] = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())
        if found["versions"] == versions:
            reports = {int(chips): report for chips, report in found["chips"].items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "foundation" / "modelscope", folder / "foundation")
        unet = folder / "foundation" / "text-to-video" / "unet" / "config.json"
        unet.write_text(json.dumps(UNET))
        for chips in arguments.chips:
            if chips not in reports:
                reports[chips] = compiled(chips, folder)
                # Those of the same versions are not redone.
                write_result(arguments.json, {"chips": reports}, packages=PACKAGES)
    print(table(reports))
    if arguments.plot:
        plot(reports, arguments.plot)


if __name__ == "__main__":
    main()
