"""How well a new subject is decoded, by how much of its data was used, as one picture."""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np

from glfa_jax.files import write_atomically

# Of a method, by minutes of the new subject that were used, then by metric: a value a seed. 0 is
# zero-shot, infinity a method that was trained on the subject.
Line = dict[float, dict[str, np.ndarray]]


def draw(lines: dict[str, Line], path: Path, *, metrics: list[str]) -> None:
    """One panel a metric; bars are standard deviations between seeds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, len(metrics), figsize=(3 * len(metrics), 3.2), layout="constrained", squeeze=False
    )
    for metric, panel in zip(metrics, panels.flat, strict=True):
        for number, (name, line) in enumerate(lines.items()):
            colour, label = f"C{number}", name.replace("$", r"\$")  # no formula
            points = sorted((at, values[metric]) for at, values in line.items() if np.isfinite(at))
            if points:
                at, means, bars = (
                    [x for x, _ in points],
                    [values.mean() for _, values in points],
                    [values.std(ddof=1) if len(values) > 1 else 0.0 for _, values in points],
                )
                panel.errorbar(at, means, bars, fmt="o-", color=colour, label=label, capsize=3)
            if np.inf in line:
                level = line[np.inf][metric].mean()
                panel.axhline(level, color=colour, linestyle="--", label=label)
        panel.set(title=metric, xlabel="minutes of the new subject")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=120)
    plt.close(figure)
    write_atomically(path, drawn.getvalue())
