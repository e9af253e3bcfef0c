"""Scores the samples against the true clips and writes the report.

    python -m eval.score --config configs/demo.yaml

Leaves RUN/scores.json (every clip's scores, for eval.compare), RUN/metrics.json (their means,
intervals and p-values), RUN/alignment.npz and RUN/report/index.html, or the same in
RUN/adapted-4min with `evaluation.adapted_minutes: 4`, in RUN/on-STORE with a test store, and in
RUN/on-STORE/adapted-4min with both.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.errors import InputError
from glfa_jax.evaluation.alignment import align_maps
from glfa_jax.evaluation.decoding import SCORING, HeldOut, open_test, validate_same_settings
from glfa_jax.evaluation.sample import folder, read_samples
from glfa_jax.evaluation.scoring import (
    Measured,
    Scored,
    Scorer,
    evaluation_models,
    protocol_of,
    scorers,
    scores_of,
)
from glfa_jax.files import read_json, reading, write_atomically, writing
from glfa_jax.lock import only_one
from glfa_jax.method import method_name, training_words
from glfa_jax.metrics import statistics
from glfa_jax.report import page
from glfa_jax.report.inputs import read_clips
from glfa_jax.report.words import count_text
from glfa_jax.results import FILE, Sampling, Scores
from glfa_jax.starting import typed
from glfa_jax.training.loop import check_unchanged, validate_unchanged

SAMPLE_AGAIN = f"remove it and run {typed('eval.sample')} again"
MONTE_CARLO_TRIALS = 100  # as the official code draws


def row(measured: Measured, *, seed: int, **about: str) -> dict:
    """One line of metrics.json.

    The p-value is one-sided, of the mean over clips being better than chance: of a t-test against
    `chance` and of a paired t-test against the same videos scored with other clips' truth
    (`mismatched`), the larger.
    """
    values, metric = measured.values, measured.about
    summary = statistics.summarise(values)
    interval = statistics.bootstrap_interval(values, seed=seed)
    tests, mismatched = [], None
    if metric.chance is not None:
        tests.append(statistics.t_test(values, chance=metric.chance))
    if measured.mismatched is not None:
        others = measured.mismatched()
        tests.append(statistics.paired_t_test(values, second=others))
        mismatched = float(others.mean())
    sign = 1 if metric.better == "higher" else -1
    one_sided = [r.p_value / 2 if sign * r.statistic > 0 else 1 - r.p_value / 2 for r in tests]
    return {
        "metric": measured.name,
        "variant": ", ".join(filter(None, (metric.variant, metric.unit))),
        "better": metric.better,
        "mean": summary.mean,
        "std": summary.std,
        "n": summary.count,
        "low": interval.low,
        "high": interval.high,
        "chance": mismatched if metric.chance is None else metric.chance,
        "p_value": max(one_sided) if one_sided else None,
        "mismatched": mismatched,
        **about,
    }


def score_subject(test: HeldOut, scorer: Scorer, subject: str) -> tuple[Scored, list[dict]]:
    """The metrics of one subject's clips, and lines of metrics.json."""
    settings = test.settings
    generated, _ = read_samples(test, subject)
    scored = scorer.score(generated, seed=settings.seed, trials=MONTE_CARLO_TRIALS)
    about = {
        "subject": subject,
        "method": method_name(settings),
        "protocol": str(protocol_of(test, [subject])),
        "training": training_words(settings),
    }
    lines = [row(one, seed=settings.seed, **about) for one in (*scored.measured, *scored.drawn)]
    return scored, lines


def main(settings: config.Config) -> None:
    check_unchanged(settings.run_dir, settings)
    index_path = folder(settings) / "index.json"
    if not index_path.exists():
        raise InputError(
            f"{folder(settings)}: nothing sampled yet; run {typed('eval.sample')} with this "
            "configuration first"
        )
    test, results = open_test(settings), system.results_folder(settings)
    with only_one(results):
        validate_same_settings(test, folder(settings), but=SCORING, keep=False)
        validate_unchanged(results, settings)  # what the report will show
        say_all(*score_all(test, results))


def score_all(test: HeldOut, results: Path) -> tuple[list[dict], Scores, Path]:
    """Scores every subject and writes what is found: lines of metrics.json, scores, report."""
    settings, index_path = test.settings, folder(test.settings) / "index.json"
    read_clips(index_path)  # hours before it is written to
    page.read_explained(results, settings)  # whose damage would stop the report, hours later
    if not os.access(results, os.W_OK):
        raise InputError(f"{results}: must not be written to; choose another results_dir")
    scorer_of, rows, scored = scorers(test, evaluation_models(settings)), [], {}
    for subject in tqdm(settings.protocol.test_subjects, desc="score", unit="subject"):
        scored[subject], lines = score_subject(test, scorer_of(subject), subject)
        rows += lines
    evaluation = settings.evaluation
    scores = scores_of(
        test,
        scored,
        seed=settings.seed,
        sampling=Sampling(
            evaluation.sampler,
            evaluation.sampling_steps,
            evaluation.guidance_scale,
            evaluation.test_maps,
        ),
        checkpoint=settings.cotrain.steps,
    )
    index = with_scores(index_path, scores)
    # The sign of a run that is scored: gone while it is not, there when all else is.
    with writing(results / FILE):
        (results / FILE).unlink(missing_ok=True)
    write_atomically(index_path, json.dumps(index, indent=1))
    write_atomically(results / "metrics.json", json.dumps(rows, indent=1) + "\n")
    align_maps(test)
    report = page.write(results)
    scores.write(results / FILE)
    return rows, scores, report


def say_all(rows: list[dict], scores: Scores, report: Path) -> None:
    for line in rows:
        chance = "" if line["chance"] is None else f", chance {line['chance']:.3f}"
        p = "" if line["p_value"] is None else f", p = {line['p_value']:.2g}"
        print(
            f"subject {line['subject']}: {line['metric']} ({line['variant']}) "
            f"{line['mean']:.3f} ± {line['std']:.3f}{chance}{p}"
        )
    for name, one in scores.overall.items():
        print(f"all: {name} ({one.variant}) {one.value:.4g}")
    for subject, clips in Counter(key.subject for key in scores.unscanned).items():
        count = count_text(clips, "test clip")
        print(f"subject {subject}: {count} not decoded for want of fMRI, listed in {FILE}")
    print(f"report: {report}", flush=True)


def with_scores(index_path: Path, scores: Scores) -> list[dict]:
    """The index of the samples, every clip with its scores."""
    found = {(clip.subject, clip.clip): clip.scores for clip in scores.clips}
    with reading(index_path, "index of these samples", remedy=SAMPLE_AGAIN):
        index = read_json(index_path)
        for entry in index:
            own = found[entry["subject"], entry["clip"]]
            entry["scores"] = {name: round(value, 5) for name, value in own.items()}
    return index


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="eval.score", description=__doc__)
