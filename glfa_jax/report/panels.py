"""Pictures that are files: one panel a metric, one legend below them all."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glfa_jax.files import write_atomically


def panels_of(
    metrics: Sequence[str], *, columns: int, width: float, x: str
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each metric, `width` inches wide; x: what lies along its axis."""
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(width * columns, 3.2 * rows), layout="constrained")
    panels = [figure.add_subplot(rows, columns, 1 + i) for i in range(len(metrics))]
    for metric, panel in zip(metrics, panels, strict=True):
        panel.set(title=metric, xlabel=x)
    return figure, panels


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, with a legend of what its first panel names."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=120)
    write_atomically(path, drawn.getvalue())
