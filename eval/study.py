"""Trains, decodes and scores every method of a study with every seed, and compares them.

    python -m eval.study --config configs/simulated.yaml

Runs the other commands, one after the other; earlier stages that several methods share are trained
once. What is finished is not done again. Leaves a run folder a method and seed, and in the study's
folder the comparison (table.md, table.tex, index.html), alignment.md and times.json.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.convert.directory import read_json
from glfa_jax.errors import InputError
from glfa_jax.results import FILE
from glfa_jax.training.logs import write_atomically

# What a stage, and all before it, do not depend on.
_AFTER = {
    "pretrain": ("alignment", "conditioning", "contrast", "cotrain", "lea", "method"),
    "contrast": ("alignment", "cotrain"),
    "cotrain": (),
}
_NOWHERE = ("adapt", "evaluation", "hardware", "name", "run_dir", "sweep")


def share_stages(own: config.Config, earlier: list[config.Config]) -> None:
    """Takes over finished stages of runs that differ in nothing that those stages depend on."""
    for stage, after in _AFTER.items():
        target = own.run_dir / stage
        if target.exists():
            continue
        for other in earlier:
            source = other.run_dir / stage
            same = all(
                key.split(".")[0].split(":")[0] in (*after, *_NOWHERE)
                for key in config.differences(own, other)
            )
            if same and (source / "done.json").exists() and (source / "model").is_dir():
                aside = target.with_name(f"{stage}.partial")
                shutil.rmtree(aside, ignore_errors=True)
                unneeded = shutil.ignore_patterns("checkpoints", "broken")
                shutil.copytree(source, aside, ignore=unneeded)
                aside.rename(target)
                break


def commands(own: config.Config) -> list[tuple[str, ...]]:
    """Modules and their arguments besides the configuration, in order."""
    minutes, protocol = own.evaluation.adapted_minutes, own.protocol
    strangers = [name for name in protocol.test_subjects if name not in protocol.train_subjects]
    fits = [] if minutes is None else strangers
    return [
        ("train.cotrain",),
        *(("train.adapt", "--subject", name, "--minutes", f"{minutes:g}") for name in fits),
        ("eval.sample",),
        ("eval.score",),
    ]


def run_cell(own: config.Config, label: str) -> None:
    """All commands of one run; raises InputError where one of them fails."""
    file = own.run_dir.with_name(own.run_dir.name + ".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, config.dump(own))
    for module, *more in commands(own):
        print(f"=== {label}: {module}", flush=True)
        begin = time.monotonic()
        command = [sys.executable, "-m", module, "--config", str(file), *more]
        code = subprocess.run(command, check=False).returncode
        if code:
            raise InputError(f"{label}: {' '.join(command[1:])} ended with {code}")
        _note_time(own.run_dir / "times.json", module, time.monotonic() - begin)


def _note_time(path: Path, module: str, seconds: float) -> None:
    """Of all starts together, where a run was interrupted."""
    times = read_json(path) if path.exists() else {}
    times[module] = round(times.get(module, 0.0) + seconds, 1)
    write_atomically(path, json.dumps(times))


def alignment_table(study: config.Study) -> str:
    """Markdown: correlation between subjects before and after alignment, over seeds."""
    lines = [
        "| method | correlation between subjects, before | after |",
        "| --- | ---: | ---: |",
    ]
    for method in study.methods:
        files = [results(study, method, seed) / "alignment.npz" for seed in study.seeds]
        found = [np.load(file) for file in files if file.exists()]
        if found:
            before, after = (
                np.array([float(arrays[key]) for arrays in found])
                for key in ("isc_before", "isc_after")
            )
            spread = f" ± {after.std(ddof=1):.4f}" if len(after) > 1 else ""
            lines.append(f"| {method} | {before.mean():.4f} | {after.mean():.4f}{spread} |")
    return "\n".join(lines) + "\n"


def results(study: config.Study, method: str, seed: int) -> Path:
    return system.results_folder(study.cell(method, seed))


def main(study: config.Study) -> None:
    cells = [
        (f"{method}, seed {seed}", study.cell(method, seed))
        for seed in study.seeds
        for method in study.methods
    ]
    for done, (label, own) in enumerate(cells):
        if (system.results_folder(own) / FILE).exists():
            continue
        print(f"=== {done} of {len(cells)} runs are there", flush=True)
        share_stages(own, [other for _, other in cells[:done]])
        run_cell(own, label)
    root = study.config.run_dir
    write_atomically(root / "alignment.md", alignment_table(study))
    times = {label: read_json(own.run_dir / "times.json") for label, own in cells}
    write_atomically(root / "times.json", json.dumps(times, indent=1) + "\n")
    runs = [
        f"{method}={results(study, method, seed)}"
        for method in study.methods
        for seed in study.seeds
    ]
    command = [sys.executable, "-m", "eval.compare", *runs, "--reference", study.reference]
    code = subprocess.run([*command, "--output", str(root)], check=False).returncode
    if code:
        raise InputError(f"{root}: python -m eval.compare ended with {code}")
    hours = sum(sum(one.values()) for one in times.values()) / 3600
    print(f"{len(cells)} runs took {hours:.1f} hours; {root / 'index.html'} compares them")


if __name__ == "__main__":
    run_main(main, schema=config.Study, description=__doc__)
