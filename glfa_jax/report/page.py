"""The report: one HTML page that needs nothing beside itself."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glfa_jax.config import Config, Protocol
from glfa_jax.files import write_atomically
from glfa_jax.method import DATA, data_of, loss_scales, started_from
from glfa_jax.report import contributions, html
from glfa_jax.report.alignment import alignment_section
from glfa_jax.report.clips import clips_section
from glfa_jax.report.contributions import Contributions
from glfa_jax.report.inputs import Metric, Run, read
from glfa_jax.report.metrics import metrics_section
from glfa_jax.report.training import training_section
from glfa_jax.report.words import (
    called,
    count_text,
    listing,
    minutes_text,
    p_text,
    subjects_text,
    value_text,
)
from glfa_jax.results import Sampling
from glfa_jax.starting import typed

Command = tuple[str, str]
"""What it does in words, the command line."""


def write(run_dir: Path, *, commands: Sequence[Command] | None = None) -> Path:
    """Writes RUN/report/index.html and returns its path; `commands` say what to run next.

    Raises ReportError, before anything is written, when the run folder lacks what a report needs.
    """
    run_dir = Path(run_dir)
    run = read(run_dir)
    if commands is None:
        commands = next_commands(run_dir, run.config)
    found = read_explained(run_dir, run.config)
    sections = [] if found is None else contributions.section(found)
    page = render(run, commands=commands, explained=sections)
    target = run_dir / "report" / "index.html"
    target.parent.mkdir(exist_ok=True)
    write_atomically(target, page)
    return target


def read_explained(run_dir: Path, config: Config) -> Contributions | None:
    """What eval.explain left of the run, if not trained further since; raises ReportError."""
    folder = Path(run_dir) / "explain"
    if not (folder / contributions.NUMBERS).exists():
        return None
    found = contributions.read(folder)
    return found if found.about.get("cotrain_steps") == config.cotrain.steps else None


def render(
    run: Run, *, commands: Sequence[Command], explained: Sequence[dict[str, Any]] = ()
) -> str:
    """explained: sections of `contributions`, where there are any."""
    lead = headline(run.metrics)
    lower = {metric.metric for metric in run.metrics if metric.better == "lower"}
    return html.render(
        "run.html",
        title=f"Video decoding from fMRI: {run.config.name}",
        summary=_summary(run, lead),
        facts=_facts(run),
        clips=clips_section(run.clips, lead[0].metric, lower=lower),
        metrics=metrics_section(run.metrics),
        aligned=run.config.aligned or run.config.evaluation.adapted_minutes is not None,
        unaligned=_unaligned(run.config),
        alignment=run.maps and alignment_section(run.maps, run.config.protocol),
        explained=explained,
        training=training_section(run.logs),
        configuration=run.config_text,
        commands=commands,
    )


# --- summary and facts ---


def headline(metrics: Sequence[Metric]) -> list[Metric]:
    """The metric named first on the page, one entry a subject: video 2-way where it was scored."""
    preferred = ("video 2-way", "frame 2-way")
    named = [m for wanted in preferred for m in metrics if m.metric == wanted]
    first = (named or list(metrics))[0]
    same = (first.metric, first.variant, first.method)
    return [m for m in metrics if (m.metric, m.variant, m.method) == same]


def _summary(run: Run, lead: Sequence[Metric]) -> str:
    protocol = run.config.protocol
    train, test = protocol.train_subjects, protocol.test_subjects
    clips = len({clip.clip for clip in run.clips})
    kind = f"{protocol.kind()} decoding"
    if protocol.kind() == "mixed":
        unseen = [subject for subject in test if subject not in train]
        kind = f"cross-subject decoding for {subjects_text(unseen)}, within-subject for the rest"
    percent = "way" in lead[0].metric

    def number(value: float) -> str:
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if percent else value_text(value)

    def result(metric: Metric) -> str:
        text = number(metric.mean)
        if metric.chance is not None:
            text += f" against {number(metric.chance)} by chance"
            if metric.p_value is not None:
                different = metric.p_value < 0.05
                text += f" (p {'' if metric.p_value < 0.001 else '= '}{p_text(metric.p_value)}"
                text += ")" if different else "), which is not distinguishable from chance"
        return text

    results = "; ".join(f"subject {m.subject} {result(m)}" for m in lead)
    if len(lead) == 1:
        results = result(lead[0])
    what = f"{lead[0].metric}{' accuracy' if percent else ''}"
    return (
        f"Trained on {subjects_text(train)}, the model decoded {count_text(clips, 'test clip')} "
        f"from the fMRI of {_decoded(protocol)} ({kind}, "
        f"{protocol.pretraining} pretraining) with a {what} of {results}."
    )


def _decoded(protocol: Protocol) -> str:
    store = "" if protocol.test_store is None else f" of {protocol.test_store.name}"
    return subjects_text(protocol.test_subjects) + store


def what_pretraining_saw(protocol: Protocol, pretraining: str) -> str:
    """Under `strict` or `published`, with those who are decoded as they are."""
    if pretraining == "strict":
        return "pretraining saw only the training split of the training subjects"
    saw = "pretraining saw the training split of all subjects of the training data"
    if protocol.kind() == "cross-dataset":
        return f"{saw}, of whom none is decoded here"
    return f"{saw}, the test subjects included, as published cross-subject numbers do"


def _facts(run: Run) -> list[tuple[str, str]]:
    config = run.config
    given = config.evaluation
    sampling = Sampling(given.sampler, given.sampling_steps, given.guidance_scale, given.test_maps)
    return [
        ("Trained on", subjects_text(config.protocol.train_subjects)),
        ("Decoded", _decoded(config.protocol)),
        *([("Simulated subjects", config.data.world)] if config.data.world else []),
        (
            f"Protocol: {config.protocol.pretraining}",
            what_pretraining_saw(config.protocol, config.protocol.pretraining),
        ),
        *_layers(config),
        ("Started from", started_from(config)),
        *([("Loss scales", loss_scales(config.cotrain))] if config.aligned else []),
        ("Sampling", str(sampling)),
        ("Method", listing(list(dict.fromkeys(m.method for m in run.metrics)))),
    ]


def _layers(config: Config) -> list[tuple[str, str]]:
    """The alignment that was trained, and the one that was fitted to new subjects."""
    own = config.alignment
    of_each = ", a layer for each training subject" if own.per_subject else ""
    if not config.aligned:
        facts = [("Alignment", "none, maps are taken as they are")]
    elif own.method == "glfa":
        local = f"local, kernel {own.kernel_size}"
        parts = ["global"] * own.global_part + [local] * own.local_part
        facts = [("Alignment (GLFA)", " + ".join(parts) + of_each)]
    else:
        facts = [("Alignment", called(own.method, own.options) + of_each)]
    minutes = config.evaluation.adapted_minutes
    if minutes is not None:
        new = [s for s in config.protocol.test_subjects if s not in config.protocol.train_subjects]
        method = config.adapt.method or own.method
        options = config.adapt.options if config.adapt.method else own.options
        amount = f"{minutes_text(minutes)} of " if minutes else ""
        words, trained = f"{called(method, options)}, to {amount}{DATA[data_of(config)]}", ""
        if config.adapt.with_encoder:
            words, trained = f"{words}; the encoder was trained with it", " and encoder"
        facts.append((f"Layer{trained} of {subjects_text(new)}", words))
    return facts


def _unaligned(config: Config) -> str:
    """Why there are no maps before and after."""
    if config.method == "lea":
        why = "LEA has no alignment layer"
    elif config.alignment.method == "glfa":
        why = "The alignment layer (GLFA) was off in this run"
    else:
        why = f"No alignment was asked for in this run (method {config.alignment.method})"
    return f"{why}, so there are no maps to show."


# --- what next ---


def next_commands(run_dir: Path, config: Config) -> list[Command]:
    """What usually follows a run: the baseline, the other protocol, this page again."""

    def again(suffix: str, *settings: str) -> str:
        sets = [f"name={config.name}-{suffix}", f"run_dir={config.run_dir}-{suffix}", *settings]
        if config.evaluation.adapted_minutes is not None:  # nothing is fitted there yet
            sets.append("evaluation.adapted_minutes=null")
        words = " ".join(f"--set {shlex.quote(setting)}" for setting in sets)
        steps = ("train.cotrain", "eval.sample", "eval.score")
        file = shlex.quote(str(run_dir / "config.yaml"))
        return " &&\n".join(f"{typed(step)} --config {file} {words}" for step in steps)

    out = []
    if config.aligned:
        off = ("alignment.global_part=false", "alignment.local_part=false")
        if config.alignment.method != "glfa":
            off = ("alignment.method=identity", "alignment.options={}")
        off += ("alignment.per_subject=false",) if config.alignment.per_subject else ()
        out.append(("The same study with no alignment layer", again("plain", *off)))
    protocol = config.protocol
    if protocol.kind() != "within-subject":
        other = "published" if protocol.pretraining == "strict" else "strict"
        saw = what_pretraining_saw(protocol, other)
        command = again(other, f"protocol.pretraining={other}")
        out.append((f"The same study under the {other} protocol: {saw}", command))
    return [*out, ("Rebuild this page", f"{typed('glfa_jax.report')} {shlex.quote(str(run_dir))}")]
