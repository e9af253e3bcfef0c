"""What a study finds beside the comparison: how alike subjects are, what minutes of data bring."""

from itertools import takewhile

import numpy as np

from glfa_jax import config, system
from glfa_jax.evaluation import protocols
from glfa_jax.files import read_arrays, reading, write_atomically
from glfa_jax.preparation import prepare
from glfa_jax.report import minutes as figure
from glfa_jax.report.comparison.text import escape_markdown
from glfa_jax.report.inspection.inspection import inspect
from glfa_jax.report.minutes import Line
from glfa_jax.report.published import METRICS
from glfa_jax.results import Scores

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
NO_ALIGNMENT = (
    "No method aligns maps of test clips that all of its subjects have seen: how alike they are is "
    "not known.\n"
)
WHOLE_NOTE = """
Rows "all, trained on" are of methods that were trained on whom they decode, which is another
protocol.
"""


def write(study: config.Study) -> None:
    """alignment.md, and where methods are fitted to a new subject minutes.md and minutes.png."""
    root = study.config.run_dir
    protocol = f"\n{escape_markdown(protocols.described(study))}\n"
    if table := alignment_table(study):
        text = table + ALIGNMENT_NOTE
        if study.config.data.simulation is not None:
            equal = equal_brains(study)
            text += f"Equal brains, that differ in gain and noise alone: {equal:.3f}.\n"
    else:
        text = NO_ALIGNMENT
    write_atomically(root / "alignment.md", text + protocol)
    found = minutes(study)
    if metrics := _metrics(found):
        whole = WHOLE_NOTE if any(np.inf in line for line in found.values()) else ""
        write_atomically(root / "minutes.md", minutes_table(found) + protocol + whole)
        figure.draw(found, root / "minutes.png", metrics=metrics)


def alignment_table(study: config.Study) -> str:
    """Markdown, empty where no run knows how alike its subjects are.

    Methods without alignment are left out; of one with a run that does not know, dashes are shown.
    """
    lines = [
        f"| method | {' | '.join(ALIGNMENT)} |",
        f"| --- |{' ---: |' * len(ALIGNMENT)}",
    ]
    known = False
    for method in study.methods:
        cells = [study.cell(method, seed) for seed in study.seeds]
        if not cells[0].aligned and cells[0].evaluation.adapted_minutes is None:
            continue
        found = [alignment_of(cell) for cell in cells]
        known |= any(found)
        values = (np.array([one.get(key, np.nan) for one in found]) for key in ALIGNMENT.values())
        lines.append(f"| {escape_markdown(method)} | {' | '.join(map(spread, values))} |")
    return "\n".join(lines) + "\n" if known else ""


def alignment_of(cell: config.Config) -> dict[str, float]:
    """What a run's alignment.npz says in numbers; nothing where it has none, as on another store.

    Raises InputError for a file that cannot be read.
    """
    path = system.results_folder(cell) / "alignment.npz"
    if not path.exists():
        return {}
    arrays = read_arrays(path, kind := "archive as eval.score writes it")
    with reading(path, kind):
        return {key: float(arrays[key]) for key in ALIGNMENT.values()}


def equal_brains(study: config.Study) -> float:
    """Inter-subject correlation of equal brains: what alignment could reach."""
    data, root = study.config.data, study.config.run_dir / "equal-brains"
    assert data.simulation is not None
    changes = {
        "simulation": data.simulation.equal_brains,
        "latents": False,
        "root": root / "study",
        "store": root / "store.zarr",
    }
    store = prepare(data.model_copy(update=changes))
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
        zero_shot = cells[0].evaluation.model_copy(update={"adapted_minutes": None})
        plain = {"evaluation": zero_shot, "run_dir": study.config.run_dir}
        line = config.dump(cells[0].model_copy(update=plain))
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
    """What all methods of a line have in common; the name of the first where that is nothing or
    another line's as well.
    """
    titles = {key: _common(methods) for key, methods in names.items()}
    shared = [*titles.values()]
    return {key: t if t and shared.count(t) == 1 else names[key][0] for key, t in titles.items()}


def _common(methods: list[str]) -> str:
    """The words with which all begin. Where none of them is just that, they go on by how much they
    were fitted to: what the last comma parts from the rest, such as "fitted to", says so too.
    """
    words = zip(*map(str.split, methods), strict=False)
    alike = takewhile(lambda places: len({word.rstrip(",") for word in places}) == 1, words)
    common = " ".join(places[0] for places in alike).rstrip(",")
    return common if common in methods else common.rpartition(",")[0] or common


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
            rows.append(f"| {escape_markdown(name)} | {_amount(at)} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def _amount(at: float) -> str:
    return "0 (zero-shot)" if not at else "all, trained on" if np.isinf(at) else f"{at:g}"


def _metrics(lines: dict[str, Line]) -> list[str]:
    """Those that all methods have; none of no methods."""
    held = [set(values) for line in lines.values() for values in line.values()]
    return [metric for metric in METRICS if held and all(metric in names for names in held)]
