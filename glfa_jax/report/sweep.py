"""How metrics depend on the settings of sampling, as one picture of a sweep's table."""

import textwrap
from pathlib import Path

import numpy as np

from glfa_jax.report.panels import panels_of, save

# What may vary along a panel's axis, the first that does.
_AXES = {
    "guidance_scale": "guidance scale",
    "sampling_steps": "sampling steps",
    "checkpoint": "step of stage 2",
}


def draw(rows: list[dict], path: Path) -> None:
    """One panel a metric: means against guidance, a line for each other setting.

    rows: lines of a sweep's table. Seeds are averaged, and so are the ends of their intervals over
    clips, which make the bands where there are any. Above stands what was trained and decoded.
    """
    varying = [key for key in _AXES if len({row[key] for row in rows}) > 1]
    across = varying[0] if varying else "guidance_scale"
    named = [key for key in (*_AXES, "subject") if key != across]
    named = [key for key in named if len({row[key] for row in rows}) > 1]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    columns = min(3, len(metrics))
    figure, panels = panels_of(metrics, columns=columns, width=4.2, x=_AXES[across])
    for metric, panel in zip(metrics, panels, strict=True):
        own = [row for row in rows if row["metric"] == metric]
        for group in dict.fromkeys(tuple(row[key] for key in named) for row in own):
            same = [row for row in own if tuple(row[key] for key in named) == group]
            x = sorted({row[across] for row in same})
            at = [[row for row in same if row[across] == value] for value in x]
            label = ", ".join(f"{_AXES.get(k, k)} {v}" for k, v in zip(named, group, strict=True))
            (line,) = panel.plot(x, _means(at, "mean"), "o-", label=label or None, markersize=4)
            if same[0]["low"] is not None:
                low, high = _means(at, "low"), _means(at, "high")
                panel.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if own[0]["chance"] is not None:
            panel.axhline(own[0]["chance"], color="grey", linestyle=":", label="chance")
    figure.suptitle(textwrap.fill(_caption(rows), 70 * columns), fontsize="small")
    save(figure, path)


def _means(groups: list[list[dict]], key: str) -> list[float]:
    return [float(np.mean([row[key] for row in group])) for group in groups]


def _caption(rows: list[dict]) -> str:
    """Method and protocol; each subject's where they differ in it."""
    protocols = {row["subject"]: row["protocol"] for row in rows}
    kinds = set(protocols.values())
    if len(kinds) > 1:
        kinds = [f"{kind} (subject {subject})" for subject, kind in protocols.items()]
    one = rows[0]
    return (
        f"{one['method']}: {', '.join(kinds)}, {one['pretraining']} pretraining, trained on "
        f"{one['train_subjects']}"
    )
