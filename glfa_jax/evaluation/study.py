"""Trains, decodes and scores every method of a study with every seed, and compares them.

    python -m eval.study --config configs/simulated.yaml

Runs the other commands, one after the other; earlier stages that several methods share are trained
once. What is finished is not done again. Leaves a run folder a method and seed, and in the study's
folder the comparison (table.md, table.tex, index.html; of methods with another protocol than the
reference's in folders of their own, such as within-subject), alignment.md, minutes.md and .png, and
times.json. Asked to stop, it stops the command under way as well; the same command goes on.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from glfa_jax import config, system
from glfa_jax.cli import EXIT_STOPPED, command_line, run_main
from glfa_jax.errors import InputError, Stopped
from glfa_jax.evaluation import findings, protocols
from glfa_jax.files import read_object, whole_folder, write_atomically
from glfa_jax.lock import only_one
from glfa_jax.results import FILE
from glfa_jax.stages import common_space
from glfa_jax.starting import program, typed

# What a stage, and all before it, do not depend on. Those before stage 2 depend on an alignment
# only where it is fitted beforehand.
_AFTER = {
    common_space.NAME: (
        *("conditioning", "contrast", "cotrain", "encoder", "foundation", "generator"),
        *("generator_folder", "hardware", "lea", "method", "pretrain", "without"),
    ),
    "pretrain": (
        *("alignment", "conditioning", "contrast", "cotrain", "generator", "generator_folder"),
        *("lea", "method", "without"),
    ),
    "contrast": ("alignment", "cotrain"),
    "cotrain": (),
}
_NOWHERE = ("adapt", "evaluation", "explain", "name", "results_dir", "run_dir", "sweep")


def share_stages(own: config.Config, earlier: list[config.Config]) -> None:
    """Takes over finished stages of runs that differ in nothing that those stages depend on."""
    for stage, after in _AFTER.items():
        target = own.run_dir / stage
        if target.exists() or stage in own.without:
            continue
        if stage == common_space.NAME and not common_space.needed(own):
            continue
        for other in earlier:
            source = other.run_dir / stage
            done = stage == common_space.NAME or (source / "done.json").exists()
            if _alike(own, other, but=after) and done and (source / "model").is_dir():
                unneeded = shutil.ignore_patterns("checkpoints", "broken")
                with whole_folder(target) as aside:
                    shutil.copytree(source, aside, ignore=unneeded, dirs_exist_ok=True)
                break


def _alike(own: config.Config, other: config.Config, *, but: Sequence[str]) -> bool:
    """Whether two runs differ in nothing but these sections and those that no training sees."""
    ignored = {*but, *_NOWHERE}
    if common_space.needed(own) or common_space.needed(other):
        ignored -= {"alignment"}
    changed = {key.split(".")[0].split(":")[0] for key in config.differences(own, other)}
    return changed <= ignored


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


def run(command: list[str]) -> int:
    """Its exit code. Who is stopped meanwhile tells the command to stop as well, and waits for it:
    left alone, it would train on beside the one of the next start.
    """
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def run_cell(own: config.Config, label: str) -> None:
    """All commands of one run. Raises InputError where one fails, Stopped where one was stopped."""
    file = settings_file(own)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, config.dump(own))
    for module, *more in commands(own):
        print(f"=== {label}: {module}", flush=True)
        command = [*program(module), "--config", str(file), *more]
        begin = time.monotonic()
        try:
            code = run(command)
        finally:
            _note_time(own, module, time.monotonic() - begin)
        if code == EXIT_STOPPED:
            raise Stopped(f"{label}: {module} was stopped")
        if code:
            words = command_line("--config", file, *more)
            raise InputError(f"{label}: {typed(module)} {words} ended with {code}")


def settings_file(own: config.Config) -> Path:
    """What a run is started with, beside its folder."""
    return own.run_dir.with_name(own.run_dir.name + ".yaml")


def validate_cell(label: str, own: config.Config) -> None:
    """Runs made with other settings are neither compared with ours nor continued."""
    file = settings_file(own)
    if not file.exists():
        return
    changed = [
        f"{key} (here | there)"
        for key in config.differences(own, config.load(file))
        if not key.startswith("hardware.processes")
    ]
    if changed:
        raise InputError(
            f"{file}: {label} was begun with other settings, {', '.join(changed)}; remove "
            f"{own.run_dir} and this file to make it anew"
        )


def validate_metrics(study: config.Study) -> None:
    """Raises InputError for what comparing would reject only after hours of training."""
    for method in study.methods:
        evaluation = study.cell(method, study.seeds[0]).evaluation
        measured = [metric.name for metric in system.asked_metrics(evaluation)]
        for name in study.metrics:
            if name not in measured:
                raise InputError(
                    f"metrics: {name!r} is not measured of {method} (evaluation.metrics), but "
                    f"{', '.join(measured)}"
                )


def times_of(own: config.Config) -> dict[str, float]:
    """Seconds of every command of a run, of all starts together."""
    path = own.run_dir / "times.json"
    return read_object(path) if path.exists() else {}


def _note_time(own: config.Config, module: str, seconds: float) -> None:
    times = times_of(own)
    times[module] = round(times.get(module, 0.0) + seconds, 1)
    own.run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(own.run_dir / "times.json", json.dumps(times))


def compare(study: config.Study) -> None:
    """By protocol: what was trained on other subjects answers another question."""
    root = study.config.run_dir
    for folder, methods in protocols.folders(study).items():
        runs = [
            f"{method}={system.results_folder(study.cell(method, seed))}"
            for method in methods
            for seed in study.seeds
        ]
        reference = study.reference if study.reference in methods else methods[0]
        output = root / folder
        command = [*program("eval.compare"), *runs, "--reference", reference]
        command += ["--output", str(output)]
        if study.metrics:
            command += ["--metrics", *study.metrics]
        if code := run(command):
            raise InputError(f"{output}: {typed('eval.compare')} ended with {code}")


def main(study: config.Study) -> None:
    with only_one(study.config.run_dir):
        run_all(study)


def run_all(study: config.Study) -> None:
    cells = [
        (f"{method}, seed {seed}", study.cell(method, seed))
        for seed in study.seeds
        for method in study.methods
    ]
    validate_metrics(study)
    for label, own in cells:
        validate_cell(label, own)
    for done, (label, own) in enumerate(cells):
        if (system.results_folder(own) / FILE).exists():
            continue
        print(f"=== {done} of {len(cells)} runs are there", flush=True)
        share_stages(own, [other for _, other in cells[:done]])
        run_cell(own, label)
    root = study.config.run_dir
    times = {label: times_of(own) for label, own in cells}
    write_atomically(root / "times.json", json.dumps(times, indent=1) + "\n")
    compare(study)
    findings.write(study)
    hours = sum(sum(one.values()) for one in times.values()) / 3600
    print(f"{len(cells)} runs took {hours:.1f} hours; {root / 'index.html'} compares them")


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="eval.study", schema=config.Study, description=__doc__)
