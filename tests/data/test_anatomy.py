"""Maps of anatomy beside the scans: drawn into the store where there are some, and what is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.data import DataError, flatmap
from glfa_jax.data.store import Store
from glfa_jax.data.surfaces import fsaverage5
from glfa_jax.files import read_object
from glfa_jax.preparation import prepare
from tests.data.conftest import settings, write_gifti

VERTICES = 10_242


def values_of(name: str) -> np.ndarray:
    seed = sum(map(ord, name))
    return np.random.default_rng(seed).normal(size=2 * VERTICES).astype(np.float32)


def write_map(root: Path, name: str, *, sides: str = "LR", subject: str = "01", more: str = ""):
    folder = root / f"sub-{subject}" / "anat"
    folder.mkdir(exist_ok=True)
    for side, part in zip("LR", np.split(values_of(name), 2), strict=True):
        if side in sides:
            file = f"sub-{subject}_hemi-{side}_space-fsaverage5{more}_{name}.shape.gii"
            write_gifti(folder / file, part[None])


@pytest.fixture
def alone(study, tmp_path):
    """sub-01 of the study, to add to."""
    root = tmp_path / "bids"
    shutil.copytree(study / "stimuli", root / "stimuli")
    shutil.copytree(study / "sub-01", root / "sub-01")
    return root


def prepared(root: Path, name: str = "a", **changes) -> Store:
    store = root.parent / f"{name}.zarr"
    return prepare(settings(root, store, subjects=("01",), **changes), progress=False)


def test_they_become_part_of_the_store_and_of_its_identity(alone):
    without = prepared(alone)
    assert without.anatomy("01") == {}
    assert "anatomy" not in read_object(without.path / "zarr.json")["attributes"]
    assert not (without.path / "anatomy").exists()

    write_map(alone, "myelinw")
    write_map(alone, "curv")
    write_map(alone, "unheardof")
    found = prepared(alone, "b")
    cortex = flatmap.build(fsaverage5(), map_size=32)
    maps = found.anatomy("01")
    assert list(maps) == found.attributes.anatomy["01"] == ["curv", "myelinw"]
    for name, drawn in maps.items():
        np.testing.assert_allclose(drawn, cortex.to_map(values_of(name)), rtol=1e-5)
    assert found.attributes.identity != without.attributes.identity
    assert not found.attributes.notes
    with pytest.raises(DataError, match="has no subject 02; it holds 01"):
        found.anatomy("02")

    prepared(alone, "b")  # is reused
    write_gifti(
        alone / "sub-01/anat/sub-01_hemi-L_space-fsaverage5_curv.shape.gii", np.ones((1, 9))
    )
    with pytest.raises(DataError, match=r"b\.zarr: .*curv\.shape\.gii has changed since"):
        prepared(alone, "b")


def test_what_cannot_be_told_is_left_out_with_a_note(alone):
    write_map(alone, "curv", sides="L")
    write_map(alone, "sulc")
    write_map(alone, "sulc", more="_desc-smooth")
    write_map(alone, "thickness")
    found = prepared(alone)
    assert list(found.anatomy("01")) == ["thickness"]
    curv, sulc = found.attributes.notes
    assert (
        "map of anatomy curv left out, needs one file of each hemisphere, has sub-01_hemi" in curv
    )
    assert "map of anatomy sulc left out" in sulc
    assert "desc-smooth" in sulc


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            np.ones((1, 642)),
            r"holds 1 values at each of 642 vertices, must hold one at each of the",
        ),
        (np.ones((2, VERTICES)), r"holds 2 values at each of 10242 vertices"),
        (np.full((1, VERTICES), np.nan), "is not finite on all of the cortex that is shown"),
    ],
)
def test_a_map_that_cannot_be_drawn_is_a_problem(alone, values, said):
    write_map(alone, "curv")
    write_map(alone, "sulc")
    write_gifti(alone / "sub-01/anat/sub-01_hemi-R_space-fsaverage5_curv.shape.gii", values)
    with pytest.raises(DataError, match=f"hemi-R.*{said}"):
        prepared(alone)
    found = prepared(alone, on_error="skip")
    assert list(found.anatomy("01")) == ["sulc"]
    assert any("curv" in note for note in found.attributes.notes)
