"""Hemispheres that seem exchanged, told by the vertices that have no signal."""

from pathlib import Path

import numpy as np
import pytest

from glfa_jax.data import surfaces
from glfa_jax.data.hemispheres import Witness, exchanged

SCANS = (Path("L.func.gii"), Path("R.func.gii"))
MESH = surfaces.fsaverage5()
WALLS = (~MESH.left.on_flat, ~MESH.right.on_flat)
# As FreeSurfer's masks: the middle of what the flat surfaces leave out.
SILENT = tuple(
    np.linalg.norm(side.pial - side.white, axis=1) < 1e-3 for side in (MESH.left, MESH.right)
)
NONE = np.zeros_like(SILENT[0])
HALF = np.arange(len(NONE)) % 2 == 0


@pytest.mark.parametrize(
    ("silent", "sides"),
    [
        ((0, 1), []),
        ((1, 0), ["left", "right"]),
        ((0, 0), ["right"]),  # the left file given for both
        ((1, 1), ["left"]),
    ],
)
def test_the_medial_wall_tells_the_hemisphere(silent, sides):
    assert exchanged([SILENT[i] for i in silent], WALLS) == sides
    assert exchanged([WALLS[i] for i in silent], WALLS) == sides


@pytest.mark.parametrize("part", [NONE, ~NONE, HALF, SILENT[0] | SILENT[1]])
def test_other_silent_vertices_tell_nothing(part):
    assert exchanged((part, part), WALLS) == []
    assert exchanged((NONE[1:], part), (WALLS[0][1:], WALLS[1])) == []


def notes(halves, *, silence=0.0, walls=WALLS, scans=SCANS):
    series = np.random.default_rng(0).normal(1000, 10, (5, 2 * len(NONE))).astype(np.float32)
    series[:, np.concatenate(halves)] = silence
    witness = Witness(walls)
    for block in (series[:2], series[2:3], series[3:]):
        witness.see(block)
    return witness.notes(scans)


@pytest.mark.parametrize("silence", [0.0, np.nan, 17.5])
def test_a_series_is_noted_by_its_file(silence):
    assert notes(SILENT, silence=silence) == []
    assert notes((NONE, NONE), silence=silence) == []
    left, right = notes(SILENT[::-1], silence=silence)
    assert left.startswith("L.func.gii: seems to hold the right hemisphere instead of the left: ")
    assert right.startswith("R.func.gii: seems to hold the left hemisphere instead of the right: ")
    assert len(notes(SILENT[::-1], scans=SCANS[:1])) == 2  # both in one file
    assert notes(SILENT[::-1], walls=()) == []  # an image has no hemispheres


def test_the_same_values_twice_are_noted():
    half = np.random.default_rng(0).normal(size=(4, len(NONE)))
    for second, expected in ((half, 1), (half + 1, 0)):
        witness = Witness(WALLS)
        witness.see(np.concatenate([half, second], axis=1))
        assert len(witness.notes(SCANS)) == expected
    witness = Witness(WALLS)
    witness.see(np.zeros((4, 2 * len(NONE))))
    assert witness.notes(SCANS) == []
