"""What a study finds beside the comparison: how alike subjects are, what minutes of data bring."""

from itertools import takewhile

import numpy as np

from glfa_jax import config, system
from glfa_jax.data.look.inspection import inspect
from glfa_jax.data.prepare import prepare
from glfa_jax.report import minutes as figure
from glfa_jax.report.minutes import Line
from glfa_jax.report.published import METRICS
from glfa_jax.results import Scores
from glfa_jax.training.logs import write_atomically

# Columns of alignment.md and the arrays of alignment.npz that they show.
ALIGNMENT = {
    "before": "isc_before",
    "after": "isc_after",
    "after one kernel everywhere": "isc_one_kernel",
    "displacement undone": "undone",
}
ALIGNMENT_NOTE = """
Inter-subject correlation over the test clips, mean over pixels, pairs of subjects and seeds (±
deviation between seeds). "After one kernel everywhere": the local layer replaced by the mean of its
kernels, an ordinary smoothing. "Displacement undone": the share of the true displacement between
the decoded subject and the others that the layers take away; with one layer for all it is 0 by
construction.
"""


def write(study: config.Study) -> None:
    """alignment.md, and where methods are fitted to a new subject minutes.md and minutes.png."""
    root = study.config.run_dir
    text = alignment_table(study) + ALIGNMENT_NOTE
    if study.config.data.simulation is not None:
        text += f"Equal brains, that differ in gain and noise alone: {equal_brains(study):.3f}.\n"
    write_atomically(root / "alignment.md", text)
    if found := minutes(study):
        write_atomically(root / "minutes.md", minutes_table(found))
        figure.draw(found, root / "minutes.png", metrics=_metrics(found))


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
    return "\n".join(lines) + "\n"


def equal_brains(study: config.Study) -> float:
    """Inter-subject correlation where nothing is displaced or mixed: what alignment could reach."""
    root = study.config.run_dir / "equal-brains"
    equal = config.overridden(
        study.config,
        (
            *("data.simulation.displacement=0", "data.simulation.mixing=0", "data.latents=false"),
            *(f"data.root={root / 'study'}", f"data.store={root / 'store.zarr'}"),
        ),
    )
    store = prepare(equal.data)
    return float(np.mean([pair.mean for pair in inspect(store, progress=False).pairs]))


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation; the latter where values vary at all."""
    if not np.isfinite(values).all():
        return "–"
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{values.mean():.3f}" + (f" ± {deviation:.3f}" if deviation > 1e-9 else "")


def minutes(study: config.Study) -> dict[str, Line]:
    """Methods that differ in how much they were fitted to are one line; 0 is zero-shot.

    A method trained on the decoded subjects has all their minutes: infinity.
    """
    lines: dict[str, Line] = {}
    names: dict[str, list[str]] = {}
    for method in study.methods:
        cells = [study.cell(method, seed) for seed in study.seeds]
        at = cells[0].evaluation.adapted_minutes or 0.0
        if cells[0].protocol.kind() == "within-subject":
            at = float("inf")
        plain = config.overridden(
            cells[0], ("evaluation.adapted_minutes=null", f"run_dir={study.config.run_dir}")
        )
        line = config.dump(plain)
        names.setdefault(line, []).append(method)
        scores = [Scores.read(system.results_folder(cell)) for cell in cells]
        lines.setdefault(line, {})[at] = {
            metric: np.array([one.values(metric).mean() for one in scores])
            for metric in METRICS
            if all(metric in one.metrics for one in scores)
        }
    fitted = [key for key, line in lines.items() if any(0 < at < np.inf for at in line)]
    whole = [key for key, line in lines.items() if np.inf in line]
    titles = _titles(names)
    return {titles[key]: lines[key] for key in (*fitted, *whole)} if fitted else {}


def _titles(names: dict[str, list[str]]) -> dict[str, str]:
    """The words with which all methods of a line begin; of the first method where that is none or
    another line's as well.
    """
    titles = {}
    for key, methods in names.items():
        words = zip(*map(str.split, methods), strict=False)
        alike = takewhile(lambda places: len(set(places)) == 1, words)
        titles[key] = " ".join(places[0] for places in alike)
    shared = [*titles.values()]
    return {key: t if t and shared.count(t) == 1 else names[key][0] for key, t in titles.items()}


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
