"""What a study finds beside the comparison: how alike subjects are, what minutes of data bring."""

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np

from glfa_jax import config, system
from glfa_jax.report.published import METRICS
from glfa_jax.results import Scores
from glfa_jax.training.logs import write_atomically

# Columns of alignment.md and the arrays of alignment.npz that they show.
ALIGNMENT = {
    "before": "isc_before",
    "after": "isc_after",
    "after one kernel everywhere": "isc_one_kernel",
    "equal brains": "isc_ceiling",
    "displacement undone": "undone",
}
ALIGNMENT_NOTE = """
Correlation between subjects, mean over pairs, test clips and seeds (± deviation between seeds).
"After one kernel everywhere": the local layer replaced by the mean of its kernels, an ordinary
smoothing. "Equal brains": what noise leaves of it where subjects differ in nothing else; smoothing
may go beyond. "Displacement undone": the share of the true displacement between the decoded subject
and the others that the layers take away; with one layer for all it is 0 by construction.
"""


def write(study: config.Study) -> None:
    """alignment.md, and where methods are fitted to a new subject minutes.md and minutes.png."""
    root = study.config.run_dir
    write_atomically(root / "alignment.md", alignment_table(study))
    if found := minutes(study):
        write_atomically(root / "minutes.md", minutes_table(found))
        draw(found, root / "minutes.png")


def alignment_table(study: config.Study) -> str:
    """Markdown; methods without alignment are left out."""
    lines = [
        f"| method | {' | '.join(ALIGNMENT)} |",
        f"| --- |{' ---: |' * len(ALIGNMENT)}",
    ]
    for method in study.methods:
        cells = [study.cell(method, seed) for seed in study.seeds]
        if not cells[0].aligned:
            continue
        found = [np.load(system.results_folder(cell) / "alignment.npz") for cell in cells]
        values = (np.array([float(one[key]) for one in found]) for key in ALIGNMENT.values())
        lines.append(f"| {method} | {' | '.join(map(spread, values))} |")
    return "\n".join(lines) + "\n" + ALIGNMENT_NOTE


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation; the latter where values vary at all."""
    if not np.isfinite(values).all():
        return "–"
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{values.mean():.3f}" + (f" ± {deviation:.3f}" if deviation > 1e-9 else "")


# Of a method, by minutes of the new subject that were used, then by metric: a value a seed.
Line = dict[float, dict[str, np.ndarray]]


def minutes(study: config.Study) -> dict[str, Line]:
    """Methods that differ in how much they were fitted to are one line; 0 is zero-shot.

    A method trained on the decoded subjects has all their minutes: infinity.
    """
    lines: dict[str, Line] = {}
    names: dict[str, str] = {}
    for method in study.methods:
        cells = [study.cell(method, seed) for seed in study.seeds]
        at = cells[0].evaluation.adapted_minutes or 0.0
        if cells[0].protocol.kind() == "within-subject":
            at = float("inf")
        plain = config.overridden(
            cells[0], ("evaluation.adapted_minutes=null", f"run_dir={study.config.run_dir}")
        )
        line = names.setdefault(config.dump(plain), method)
        scores = [Scores.read(system.results_folder(cell)) for cell in cells]
        lines.setdefault(line, {})[at] = {
            metric: np.array([one.values(metric).mean() for one in scores])
            for metric in METRICS
            if all(metric in one.metrics for one in scores)
        }
    fitted = [name for name, line in lines.items() if any(0 < at < np.inf for at in line)]
    whole = [name for name, line in lines.items() if np.inf in line]
    return {name: lines[name] for name in (*fitted, *whole)} if fitted else {}


def minutes_table(lines: dict[str, Line]) -> str:
    """Markdown."""
    metrics = _metrics(lines)
    rows = [
        f"| method | minutes of the new subject | {' | '.join(metrics)} |",
        f"| --- | ---: |{' ---: |' * len(metrics)}",
    ]
    for name, line in lines.items():
        for at, values in sorted(line.items()):
            shown = (spread(values[metric]) for metric in metrics)
            rows.append(f"| {name} | {_amount(at)} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def _amount(at: float) -> str:
    return "0 (zero-shot)" if not at else "all, trained on" if np.isinf(at) else f"{at:g}"


def _metrics(lines: dict[str, Line]) -> list[str]:
    held = [set(values) for line in lines.values() for values in line.values()]
    return [metric for metric in METRICS if all(metric in names for names in held)]


def draw(lines: dict[str, Line], path: Path) -> None:
    """One panel a metric; bars are standard deviations between seeds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    metrics = _metrics(lines)
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(3 * len(metrics), 3.2), layout="constrained", squeeze=False
    )
    for metric, panel in zip(metrics, panels.flat, strict=True):
        for number, (name, line) in enumerate(lines.items()):
            colour = f"C{number}"
            points = sorted((at, values[metric]) for at, values in line.items() if np.isfinite(at))
            if points:
                at, means, bars = (
                    [x for x, _ in points],
                    [values.mean() for _, values in points],
                    [values.std(ddof=1) if len(values) > 1 else 0.0 for _, values in points],
                )
                panel.errorbar(at, means, bars, fmt="o-", color=colour, label=name, capsize=3)
            if np.inf in line:
                level = line[np.inf][metric].mean()
                panel.axhline(level, color=colour, linestyle="--", label=name)
        panel.set(title=metric, xlabel="minutes of the new subject")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    aside = path.with_suffix(".partial.png")
    figure.savefig(aside, dpi=120)
    plt.close(figure)
    os.replace(aside, path)
