"""Samples and scores the test clips under many settings, and says how the metrics depend on them.

    python -m eval.sweep --config configs/demo.yaml --set 'sweep.guidance_scales=[1, 2, 3, 5, 8]' \
        --set 'sweep.sampling_steps=[10, 25]' --set 'sweep.seeds=[0, 1]'

Every combination of `sweep` in the configuration is a cell, for each test subject. Programs are
compiled once a number of sampling steps; checkpoint, guidance scale and seed are arguments of them.
Finished cells are not done again, so a sweep can grow: by other values, by test subjects, and by
checkpoints of further training. Leaves RUN/sweep: a scores.json a cell, table.csv and table.json (a
line a cell and metric) and sweep.png.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from itertools import groupby, product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import HeldOut, open_test, validate_same_settings
from glfa_jax.evaluation.scoring import Scored, evaluation_models, scorers, scores_of
from glfa_jax.files import write_atomically
from glfa_jax.lock import only_one
from glfa_jax.metrics import statistics
from glfa_jax.report import sweep as figure
from glfa_jax.results import FILE, Sampling, Scores
from glfa_jax.trained.sampler import VideoSampler
from glfa_jax.training.checkpoints import kept_steps

# Keys of settings.json that a cell's path tells. The finished model is known by its step as well:
# trained further, it is another cell.
IN_PATH = frozenset(
    {"evaluation.guidance_scale", "evaluation.sampling_steps", "test_subjects", "steps"}
)


@dataclass(frozen=True)
class Cell:
    """checkpoint: its step of stage 2."""

    checkpoint: int
    subject: str
    sampling_steps: int
    guidance_scale: float
    seed: int

    @property
    def name(self) -> Path:
        scale = repr(self.guidance_scale).removesuffix(".0")
        settings = f"steps{self.sampling_steps}_scale{scale}_seed{self.seed}"
        return Path(self.subject) / f"checkpoint{self.checkpoint}_{settings}"


def cells(settings: config.Config) -> list[Cell]:
    """All combinations; those that share a model lie side by side."""
    sweep, evaluation = settings.sweep, settings.evaluation
    return [
        Cell(*values)
        for values in product(
            sweep.checkpoints or (settings.cotrain.steps,),
            settings.protocol.test_subjects,
            sweep.sampling_steps or (evaluation.sampling_steps,),
            sweep.guidance_scales or (evaluation.guidance_scale,),
            sweep.seeds or (settings.seed,),
        )
    ]


def folder(settings: config.Config) -> Path:
    return system.results_folder(settings) / "sweep"


def is_done(settings: config.Config, cell: Cell) -> bool:
    """Whether the cell's scores are there; a file that does not hold them is set aside."""
    path = folder(settings) / cell.name / FILE
    if not path.exists():
        return False
    try:
        validate_same_cell(path, cell)
    except InputError as error:
        aside = path.with_name(f"{FILE}.broken")
        path.replace(aside)
        print(f"sweep: {error}; set aside as {aside.name}, this cell is done anew", flush=True)
        return False
    return True


def validate_same_cell(path: Path, cell: Cell) -> None:
    """Raises InputError where a file does not hold scores, or those of another cell."""
    scores = Scores.read(path)
    theirs = {
        "checkpoint": scores.training.get("cotrain.checkpoint", cell.checkpoint),
        "subject": ", ".join(scores.protocol.test_subjects),
        "sampling_steps": scores.sampling.steps,
        "guidance_scale": scores.sampling.guidance_scale,
        "seed": scores.seed,
    }
    odd = [
        f"{key} {value}" for key, value in theirs.items() if str(value) != str(getattr(cell, key))
    ]
    if odd:
        raise InputError(f"{path}: is of {', '.join(odd)}")


def decode_all(test: HeldOut, sampler: VideoSampler, cell: Cell) -> Iterator[np.ndarray]:
    """Every batch of the subject's videos."""
    for clips in test.batches(cell.subject):
        yield test.decode(
            sampler,
            cell.subject,
            clips,
            scale=cell.guidance_scale,
            steps=cell.sampling_steps,
            seed=cell.seed,
        )


def validate_checkpoints(settings: config.Config, missing: list[Cell]) -> None:
    """Raises InputError where a checkpoint is wanted that training no longer keeps."""
    place = settings.run_dir / "cotrain"
    kept = {settings.cotrain.steps, *kept_steps(place)}
    if lost := sorted({cell.checkpoint for cell in missing} - kept):
        raise InputError(
            f"sweep.checkpoints: {listed(lost)} not kept in {place}, there are "
            f"{listed(sorted(kept))}; cotrain.keep says how many are"
        )


def listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def run_all(test: HeldOut, missing: list[Cell]) -> None:
    """Samples and scores cells; each is written when it is whole."""
    settings = test.settings
    validate_checkpoints(settings, missing)
    scorer_of = scorers(test, evaluation_models(settings))  # kept for all models
    batches = {
        subject: len(list(test.batches(subject))) for subject in settings.protocol.test_subjects
    }
    sampler: VideoSampler | None = None
    total = sum(batches[cell.subject] for cell in missing)
    with tqdm(total=total, desc="sweep", unit="batch", mininterval=5) as progress:
        for checkpoint, same_model in groupby(missing, lambda cell: cell.checkpoint):
            finished = checkpoint == settings.cotrain.steps
            step = None if finished else checkpoint
            if sampler is None:
                sampler = test.sampler(step=step)
                # Written only now: what is rejected before it may be asked for in another way.
                validate_same_settings(test, folder(settings), but=IN_PATH)
            else:
                test.load(sampler, step=step)
            for cell in same_model:
                videos = []
                for video in decode_all(test, sampler, cell):
                    videos.append(video)
                    progress.update()
                scorer, generated = scorer_of(cell.subject), np.concatenate(videos)
                write(test, cell, scorer.score(generated, seed=cell.seed, trials=None))


def write(test: HeldOut, cell: Cell, scored: Scored) -> None:
    evaluation = test.settings.evaluation
    scores = scores_of(
        test,
        {cell.subject: scored},
        seed=cell.seed,
        sampling=Sampling(
            evaluation.sampler, cell.sampling_steps, cell.guidance_scale, evaluation.test_maps
        ),
        checkpoint=cell.checkpoint,
    )
    place = folder(test.settings) / cell.name
    place.mkdir(parents=True, exist_ok=True)
    scores.write(place / FILE)


def table(settings: config.Config) -> list[dict]:
    """A line a cell and metric: mean over clips, sample deviation, bootstrap interval.

    What has one value for all clips has neither deviation nor interval. Training subjects are
    listed with spaces between them.
    """
    rows = []
    for cell in cells(settings):
        scores = Scores.read(folder(settings) / cell.name / FILE)
        protocol = scores.protocol
        about = {
            "method": scores.method,
            "protocol": protocol.name,
            "pretraining": protocol.pretraining,
            "train_subjects": " ".join(protocol.train_subjects),
        }
        for name, metric in scores.metrics.items():
            values = scores.values(name)
            summary = statistics.summarise(values)
            interval = statistics.bootstrap_interval(values, seed=0, resamples=2000)
            rows.append(
                asdict(cell)
                | {"metric": name, "variant": metric.variant, "better": metric.better}
                | {"mean": summary.mean}
                | {"std": summary.std, "low": interval.low, "high": interval.high}
                | {"clips": summary.count, "chance": metric.chance}
                | about
            )
        for name, one in scores.overall.items():
            rows.append(
                asdict(cell)
                | {"metric": name, "variant": one.variant, "better": one.better}
                | {"mean": one.value, "std": None, "low": None, "high": None}
                | {"clips": len(scores.clips), "chance": None}
                | about
            )
    return rows


def best_of(rows: list[dict]) -> str:
    """The cell in which a metric is best, in words."""
    pick = max if rows[0]["better"] == "higher" else min
    best = pick(rows, key=lambda row: row["mean"])
    where = ", ".join(f"{field.name} {best[field.name]}" for field in fields(Cell))
    has_interval = best["low"] is not None
    interval = f" ({best['low']:.3f} to {best['high']:.3f})" if has_interval else ""
    return f"{best['metric']}: best {best['mean']:.3f}{interval} at {where}"


def main(settings: config.Config) -> None:
    test = open_test(settings)
    with only_one(folder(settings)):
        sweep_all(test)


def sweep_all(test: HeldOut) -> None:
    settings = test.settings
    validate_same_settings(test, folder(settings), but=IN_PATH, keep=False)
    wanted = cells(settings)
    missing = [cell for cell in wanted if not is_done(settings, cell)]
    if done := len(wanted) - len(missing):
        print(f"sweep: {done} of {len(wanted)} cells are there already", flush=True)
    if missing:
        run_all(test, missing)
    rows, place = table(settings), folder(settings)
    lines = StringIO()
    writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(place / "table.csv", lines.getvalue())
    write_atomically(place / "table.json", json.dumps(rows, indent=1) + "\n")
    figure.draw(rows, place / "sweep.png")
    for metric in dict.fromkeys(row["metric"] for row in rows):
        print(best_of([row for row in rows if row["metric"] == metric]), flush=True)
    print(f"table and figure: {place}", flush=True)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="eval.sweep", description=__doc__)
