"""Regions: areas by name from label GIFTI and CIFTI, and mask images."""

import pickle
import tracemalloc
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from glfa_jax.config import VISUAL_AREAS
from glfa_jax.data import DataError, regions
from tests.data.meshes import write_dlabel, write_labels, write_surface

TABLE = {0: "???", 1: "R_V1_ROI", 2: "R_MT_ROI", 181: "L_V1_ROI", 182: "L_MT_ROI", 190: "L_A1_ROI"}
KEYS = {"left": np.array([0, 181, 182, 190, 181, 0]), "right": np.array([2, 1, 0, 2, 1, 0, 0])}
CUT = {"left": np.array([5]), "right": np.array([2, 6])}
SIDES = (6, 7)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    gifti = tuple(
        write_labels(folder / f"{side}.label.gii", KEYS[side], TABLE, side) for side in KEYS
    )
    return {"gifti": gifti, "cifti": (write_dlabel(folder / "p.dlabel.nii", KEYS, TABLE, CUT),)}


@pytest.fixture(params=["gifti", "cifti"])
def labels(request, files):
    return files[request.param]


@pytest.mark.parametrize("name", ["V1", "V1_ROI", "L_V1", "R_V1_ROI"])
def test_an_area_is_found_however_it_is_written(labels, name):
    inside = regions.areas(labels, names=[name], sides=SIDES)
    assert np.flatnonzero(inside).tolist() == [1, 4, 6 + 1, 6 + 4]


def test_several_areas_join(labels):
    inside = regions.areas(labels, names=["MT", "V1"], sides=SIDES)
    assert np.flatnonzero(inside).tolist() == [1, 2, 4, 6, 7, 9, 10]


@pytest.mark.parametrize("written", ["{}", "{}_ROI", "L_{}", "L_{}_ROI"])
def test_names_in_the_file_may_lack_side_and_suffix(tmp_path, written):
    paths = []
    for side in KEYS:
        table = {1: written.format("V3A").replace("L_", f"{side[0].upper()}_")}
        paths.append(write_labels(tmp_path / f"{side}.label.gii", np.array([1, 0]), table, None))
    inside = regions.areas(paths, names=["V3A"], sides=(2, 2))
    assert inside.tolist() == [True, False, True, False]


def test_every_unknown_area_is_listed(labels):
    with pytest.raises(DataError, match=r"no area is called V9, X2; 3 areas are known"):
        regions.areas(labels, names=["V9", "V1", "X2"], sides=SIDES)


def test_default_names_are_those_of_the_whole_visual_cortex(tmp_path):
    table = dict(enumerate(VISUAL_AREAS, start=1))
    keys = np.array([*table, 0])
    paths = [write_labels(tmp_path / f"{i}.label.gii", keys, table, None) for i in "LR"]
    inside = regions.areas(paths, names=VISUAL_AREAS, sides=(32, 32))
    assert len(VISUAL_AREAS) == 31
    assert inside.sum() == 62
    assert not inside[[31, 63]].any()


def test_an_area_of_one_hemisphere_is_rejected(labels):
    with pytest.raises(DataError, match="only one hemisphere has A1"):
        regions.areas(labels, names=["V1", "A1"], sides=SIDES)


def test_another_mesh_is_rejected(labels):
    with pytest.raises(DataError, match=r"labels .*6 vertices, the left surface has 8"):
        regions.areas(labels, names=["V1"], sides=(8, 7))


def test_exchanged_hemispheres_are_noticed(files, tmp_path):
    left, right = files["gifti"]
    with pytest.raises(DataError, match=r"right.label.gii: holds CortexRight"):
        regions.areas((right, left), names=["V1"], sides=(7, 6))
    silent = [
        write_labels(tmp_path / f"{side}.label.gii", KEYS[side], TABLE, None) for side in KEYS
    ]
    with pytest.raises(DataError, match=r"right.label.gii: R_MT_ROI lies in the left hemisphere"):
        regions.areas(silent[::-1], names=["V1"], sides=(7, 6))


def test_files_of_another_kind_are_rejected(files, tmp_path):
    surface = write_surface(tmp_path / "a.surf.gii", np.eye(3), np.array([[0, 1, 2]]), "left")
    with pytest.raises(DataError, match=r"a.surf.gii: no label GIFTI"):
        regions.areas((surface, files["gifti"][1]), names=["V1"], sides=SIDES)
    with pytest.raises(DataError, match=r"left.label.gii: truncated or no CIFTI"):
        regions.areas(files["gifti"][:1], names=["V1"], sides=SIDES)
    with pytest.raises(DataError, match=r"none.dlabel.nii: no such file"):
        regions.areas((tmp_path / "none.dlabel.nii",), names=["V1"], sides=SIDES)


@pytest.mark.parametrize("kind", ["gifti", "cifti"])
def test_a_file_cut_anywhere_is_rejected(files, tmp_path, kind):
    whole = files[kind][0].read_bytes()
    cut = tmp_path / f"cut.{kind}.nii"
    given = (cut,) if kind == "cifti" else (cut, files["gifti"][1])
    for length in (*range(0, len(whole) - 8, len(whole) // 60), len(whole) - 8):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.\w+\.nii: (truncated or )?no "):
            regions.areas(given, names=["V1"], sides=SIDES)


MASK = np.array([[0, 1, 1], [-1, 1, 0]])


@pytest.mark.parametrize("kind", ["npz", "npz of one", "npy", "npy of floats"])
def test_a_mask_image_is_read(tmp_path, kind):
    path = tmp_path / f"mask.{kind[:3]}"
    if kind.startswith("npz"):
        np.savez_compressed(path, images=MASK[None] if kind.endswith("one") else MASK)
    else:
        np.save(path, MASK.astype(np.float32) if kind.endswith("floats") else MASK)
    np.testing.assert_array_equal(regions.image(path), MASK)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (MASK * 2, "must hold -1"),
        (np.where(MASK == 1, np.nan, MASK), "must hold -1"),
        (np.zeros((2, 3)), "has no pixel of the region"),
        (np.stack([MASK, MASK]), "must be one image"),
        (MASK.astype(str), "must hold -1"),
    ],
)
def test_a_wrong_mask_image_is_rejected(tmp_path, image, message):
    np.save(tmp_path / "mask.npy", image)
    with pytest.raises(DataError, match=f"mask.npy: {message}"):
        regions.image(tmp_path / "mask.npy")


class Code:
    """Runs when unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle"])
def test_a_pickled_mask_image_never_runs(tmp_path, kind):
    path = tmp_path / f"mask.{'npz' if kind == 'npz' else 'npy'}"
    if kind == "npz":
        np.savez(path, images=np.array([[Code()]], object))
    elif kind == "npy":
        np.save(path, np.array([[Code()]], object))
    else:
        path.write_bytes(pickle.dumps(Code()))
    with pytest.raises(DataError, match=r"no .npy or .npz of plain numbers"):
        regions.image(path)
    assert not Code.ran


def test_a_damaged_or_other_archive_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"none.npz: no such file"):
        regions.image(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", mask=MASK)
    with pytest.raises(DataError, match=r"other.npz: must hold the key images, holds mask"):
        regions.image(tmp_path / "other.npz")
    np.savez_compressed(tmp_path / "whole.npz", images=np.tile(MASK, (50, 50)))
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in range(0, len(whole), 20):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut.npz: truncated"):
            regions.image(tmp_path / "cut.npz")


@pytest.mark.parametrize("shape", [(2**13, 2**13), (2**30, 2**30)])
def test_a_small_file_that_claims_a_huge_image_is_rejected(tmp_path, shape):
    path = tmp_path / "mask.npz"
    honest = shape[0] < 2**20
    head = {"descr": "|i1", "fortran_order": False, "shape": shape}
    with ZipFile(path, "w", ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, head)
        file.write(bytes(2**26 if honest else 9))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"mask\.npz: (would take|needs more memory|truncated)"):
            regions.image(path)
        # The system makes room for what is claimed only when it is written to.
        assert not honest or tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_vertices_take_the_nearest_pixel_of_a_mask_image():
    # 5 x 4 vertices on the left, 3 x 4 on the right, 1 mm apart: with two free columns between
    # them they fill an image of 4 x 9 pixels, one vertex a pixel.
    grids = [np.stack(np.meshgrid(np.arange(n), np.arange(4)), -1).reshape(-1, 2) for n in (5, 3)]
    left, right = grids[0] * 1.0 - 7, grids[1] * 1.0 - 7
    lost = np.array([[100.0, 100.0]])  # not on the flat surface: must not widen the image
    mask = np.zeros((4, 9), np.int8)
    mask[0, 0] = 1  # top left: left hemisphere, most dorsal, most to the left
    mask[3, 8] = 1  # bottom right
    mask[1, 4:7] = (1, 1, -1)  # right end of the left hemisphere, the gap, other cortex
    inside = regions.from_image(
        mask,
        flats=(np.concatenate([left, lost]), right),
        cortex=(np.arange(21) < 20, np.ones(12, bool)),
    )
    chosen = np.flatnonzero(inside)
    places = np.concatenate([left, lost, right])[chosen] + 7
    assert places.tolist() == [[4, 2], [0, 3], [2, 0]]
    assert (chosen < 21).tolist() == [True, True, False]
