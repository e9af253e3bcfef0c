"""A contact sheet of decoded clips above the true ones, for a README or a slide.

python -m glfa_jax.report.sheet RUN picture.png --clips 8
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from glfa_jax.cli import guarded
from glfa_jax.data.video import read_all
from glfa_jax.errors import InputError
from glfa_jax.files import whole_file
from glfa_jax.report import inputs
from glfa_jax.starting import typed

_FRAMES = 3


def draw(run_dir: Path, target: Path, *, clips: int) -> None:
    """Evenly spaced clips of the test set, not chosen: three frames each, truth over decoded."""
    run = inputs.read(run_dir)
    if clips < 1:
        raise InputError(f"clips: must be at least 1, got {clips}")
    picks = np.unique(np.linspace(0, len(run.clips) - 1, clips).astype(int))
    columns = min(len(picks), 4)
    rows = -(-len(picks) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    for place, pick in enumerate(picks, start=1):
        clip, axis = run.clips[pick], figure.add_subplot(rows, columns, place)
        axis.axis("off")
        axis.imshow(np.concatenate([_strip(clip.truth), _strip(clip.generated)]))
        axis.set_title(clip.caption, fontsize=8, wrap=True)
        for y, word in ((0.75, "true"), (0.25, "decoded")):
            axis.text(-0.02, y, word, rotation=90, va="center", ha="right", fontsize=8,
                      transform=axis.transAxes)  # fmt: skip
    with whole_file(target, suffix=target.suffix) as aside:
        figure.savefig(aside, dpi=110)


def _strip(path: Path) -> np.ndarray:
    """First, middle and last frame beside each other."""
    frames = read_all(path)
    return np.concatenate(frames[np.linspace(0, len(frames) - 1, _FRAMES).astype(int)], axis=1)


def command(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=typed("glfa_jax.report.sheet"), description="contact sheet of decoded clips"
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    options = parser.parse_args(arguments)
    return guarded(lambda: draw(options.run, options.picture, clips=options.clips))


if __name__ == "__main__":
    sys.exit(command())
