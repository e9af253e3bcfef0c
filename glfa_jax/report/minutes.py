"""How well a new subject is decoded, by how much of its data was used, as one picture."""

from pathlib import Path

import numpy as np

from glfa_jax.report.panels import panels_of, save

# Of a method, by minutes of the new subject that were used, then by metric: a value a seed. 0 is
# zero-shot, infinity a method that was trained on the subject.
Line = dict[float, dict[str, np.ndarray]]


def draw(lines: dict[str, Line], path: Path, *, metrics: list[str]) -> None:
    """One panel a metric; bars are standard deviations between seeds."""
    figure, panels = panels_of(
        metrics, columns=len(metrics), width=3, x="minutes of the new subject"
    )
    for metric, panel in zip(metrics, panels, strict=True):
        for number, (name, line) in enumerate(lines.items()):
            colour, label = f"C{number}", name.replace("$", r"\$")  # no formula
            points = sorted((at, values[metric]) for at, values in line.items() if np.isfinite(at))
            if points:
                at = [x for x, _ in points]
                means = [values.mean() for _, values in points]
                bars = [values.std(ddof=1) if len(values) > 1 else 0.0 for _, values in points]
                panel.errorbar(at, means, bars, fmt="o-", color=colour, label=label, capsize=3)
            if np.inf in line:
                level = line[np.inf][metric].mean()
                panel.axhline(level, color=colour, linestyle="--", label=label)
    save(figure, path)
