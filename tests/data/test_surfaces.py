"""The surfaces: fsaverage5 built in, any other mesh from files; which vertices are the region."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glfa_jax import config
from glfa_jax.data import DataError, surfaces
from glfa_jax.data.surfaces import fsaverage5, triangle_areas
from tests.data.meshes import Sheet, sheet, write_dlabel, write_labels, write_surface

HEMISPHERES = [fsaverage5().left, fsaverage5().right]
both = pytest.mark.parametrize("hemisphere", HEMISPHERES, ids=["left", "right"])


def test_has_the_vertices_of_fsaverage5():
    surfaces = fsaverage5()
    assert surfaces.left.num_vertices == surfaces.right.num_vertices == 10_242
    assert surfaces.num_vertices == len(surfaces.region) == 20_484


def test_left_and_right_are_on_their_own_side():
    left, right = HEMISPHERES
    assert left.pial[:, 0].mean() < -20
    assert right.pial[:, 0].mean() > 20


@both
def test_region_is_posterior_cortex_of_a_useful_size(hemisphere):
    assert 2_000 < hemisphere.region.sum() < 3_500
    assert hemisphere.inflated[hemisphere.region, 1].max() < -40
    # The occipital pole, the rearmost cortex that the flat surface kept, belongs to it.
    on_flat = np.unique(hemisphere.faces)
    pole = on_flat[hemisphere.pial[on_flat, 1].argmin()]
    assert hemisphere.region[pole]


@both
def test_region_is_one_disc_without_holes(hemisphere):
    faces = hemisphere.region_faces
    sides = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    vertices = np.unique(faces)
    assert len(vertices) == hemisphere.region.sum()
    graph = coo_array((np.ones(len(sides)), sides.T), shape=(10_242, 10_242))
    _, piece = connected_components(graph, directed=False)
    assert len(np.unique(piece[vertices])) == 1
    assert len(vertices) - len(sides) + len(faces) == 1  # Euler characteristic of a disc


@both
def test_no_triangle_is_torn_stretched_or_folded(hemisphere):
    corners = hemisphere.flat[hemisphere.faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)
    assert edges.max() <= 8
    assert triangle_areas(hemisphere.flat, hemisphere.faces).min() > 0


@both
def test_white_lies_below_pial(hemisphere):
    thickness = np.linalg.norm(hemisphere.pial - hemisphere.white, axis=1)
    assert 1.5 < np.median(thickness) < 4


def settings(**changes) -> config.Data:
    values = {"root": "study", "store": "store", "subjects": ("1",), "space": "fsLR"}
    return config.Data.model_validate({**values, **changes})


@dataclass(frozen=True)
class Files:
    """The synthetic mesh on disk, and three areas on it: a stripe and two parts far apart."""

    folder: Path
    sheets: dict[str, Sheet]
    keys: dict[str, np.ndarray]
    flat: tuple[Path, Path]
    pial: tuple[Path, Path]
    white: tuple[Path, Path]
    gifti: tuple[Path, Path]
    cifti: tuple[Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    sheets = {side: sheet(side) for side in ("left", "right")}
    table = {0: "???", 1: "V1", 2: "V2"}
    keys = {}
    for side, one in sheets.items():
        x, y = one.flat[:, :2].T
        keys[side] = np.where(np.abs(x + 30) < 12, 1, np.where(np.abs(y) > 25, 2, 0))
        keys[side][one.cut] = 0
    written = {
        kind: tuple(
            write_surface(folder / f"{side}.{kind}.surf.gii", getattr(one, kind), one.faces, side)
            for side, one in sheets.items()
        )
        for kind in ("flat", "pial", "white")
    }
    gifti = tuple(
        write_labels(folder / f"{side}.label.gii", keys[side], table, side) for side in sheets
    )
    cut = {side: one.cut for side, one in sheets.items()}
    cifti = write_dlabel(folder / "areas.dlabel.nii", keys, table, cut)
    return Files(folder, sheets, keys, **written, gifti=gifti, cifti=(cifti,))


def load(files: Files, *, region: dict | None = None, space: str = "fsLR", **kinds):
    given = {"flat": files.flat, "pial": files.pial, **kinds}
    region = region or {"labels": files.gifti, "areas": ("V1",)}
    return surfaces.load(settings(surfaces=given, region=region, space=space))


def test_a_mesh_of_files_is_taken_as_it_is(files):
    loaded = load(files, white=files.white)
    assert loaded.space == "fsLR"
    assert loaded.num_vertices == sum(len(one.flat) for one in files.sheets.values())
    assert loaded.left.num_vertices != loaded.right.num_vertices
    for side, hemisphere in (("left", loaded.left), ("right", loaded.right)):
        true = files.sheets[side]
        for kind in ("pial", "white"):
            np.testing.assert_allclose(getattr(hemisphere, kind), getattr(true, kind), atol=1e-4)
        np.testing.assert_allclose(hemisphere.flat, true.flat[:, :2], atol=1e-4)
        assert not np.isin(hemisphere.faces, true.cut).any()
        rows = {tuple(face) for face in true.faces.tolist()}
        assert {tuple(face) for face in hemisphere.faces.tolist()} <= rows
        assert len(hemisphere.faces) > 0.97 * len(rows)


def test_label_gifti_and_cifti_agree(files):
    from_gifti = load(files, region={"labels": files.gifti, "areas": ("V1", "V2")})
    from_cifti = load(files, region={"labels": files.cifti, "areas": ("V1", "V2")})
    assert from_gifti.region.sum() > 1000
    np.testing.assert_array_equal(from_gifti.region, from_cifti.region)


def test_all_pieces_of_named_areas_stay_and_lone_vertices_drop_out(files):
    loaded = load(files, region={"labels": files.gifti, "areas": ("V2",)})
    for side, hemisphere in (("left", loaded.left), ("right", loaded.right)):
        wanted = files.keys[side] == 2
        kept = np.zeros(len(wanted), bool)
        for face in hemisphere.faces:
            if wanted[face].all():
                kept[face] = True
        np.testing.assert_array_equal(hemisphere.region, kept)
        top, bottom = hemisphere.flat[kept, 1] > 20, hemisphere.flat[kept, 1] < -20
        assert min(top.sum(), bottom.sum()) > 50
        assert (top | bottom).all()
        assert (wanted & ~kept).sum() < 10


def test_torn_and_folded_triangles_go(files, tmp_path):
    left = files.sheets["left"]
    far = np.array([left.flat[:, 0].argmin(), left.flat[:, 0].argmax(), left.flat[:, 1].argmax()])
    back = left.faces[40][::-1]
    degenerate = np.array([left.faces[7][0]] * 2 + [left.faces[7][1]])
    extra = np.concatenate([left.faces, [far, back, degenerate]])
    path = write_surface(tmp_path / "flat.gii", left.flat, extra, "left")
    for kinds in ({}, {"pial": None}):
        got = load(files, flat=(path, files.flat[1]), **kinds)
        want = load(files, **kinds)
        np.testing.assert_array_equal(got.left.faces, want.left.faces)


def test_a_mesh_drawn_mirrored_is_no_fold(files, tmp_path):
    one = files.sheets["right"]
    mirrored = one.flat * (-1, 1, 1)
    path = write_surface(tmp_path / "flat.gii", mirrored, one.faces, "right")
    got = load(files, flat=(files.flat[0], path))
    np.testing.assert_array_equal(got.right.faces, load(files).right.faces)


def test_a_mask_image_names_the_region(files, tmp_path):
    mask = np.full((60, 200), -1)
    mask[:, 100:] = 1  # more than the right hemisphere: it is the wider one
    mask[:30] = -1  # the lower half only
    np.savez(tmp_path / "mask.npz", images=mask[None])
    with pytest.raises(DataError, match=r"data.region: no triangle of the left flat surface"):
        load(files, region={"mask": tmp_path / "mask.npz"})
    mask[30:, :20] = 1
    np.save(tmp_path / "mask.npy", mask)
    loaded = load(files, region={"mask": tmp_path / "mask.npy"})
    left, right = (side.flat[side.region] for side in (loaded.left, loaded.right))
    assert left[:, 0].max() < -30
    assert right[:, 0].min() < -58
    assert right[:, 0].max() > 58
    assert max(left[:, 1].max(), right[:, 1].max()) < 1
    assert right[:, 1].min() < -38


def test_built_in_surfaces_take_a_region_too(tmp_path):
    keys = [np.where(side.pial[:, 1] < -70, 1, 0) for side in HEMISPHERES]
    paths = [
        write_labels(tmp_path / f"{i}.label.gii", part, {1: "V1"}, None)
        for i, part in enumerate(keys)
    ]
    region = {"labels": paths, "areas": ("V1",)}
    for space in ("fsaverage5", "MNI152NLin6Asym"):
        loaded = surfaces.load(settings(space=space, region=region))
        assert 500 < loaded.region.sum() < sum(part.sum() for part in keys) + 1
        assert not loaded.region[np.concatenate(keys) == 0].any()
        np.testing.assert_array_equal(loaded.left.faces, HEMISPHERES[0].faces)


@pytest.mark.parametrize("space", ["fsaverage5", "MNI152NLin2009cAsym", "MNI305"])
def test_fsaverage5_needs_no_files_and_serves_volumes(space):
    assert surfaces.load(settings(space=space)) is fsaverage5()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"space": "fsLR"},
            "space fsLR needs .*S1200.L.flat.32k_fs_LR.surf.gii.*fetch surfaces OUT",
        ),
        ({"space": "fsLR59k"}, "space fsLR59k needs .*MNINonLinear/fsaverage_LR59k"),
        ({"space": "fsaverage6"}, r"fetch_surf_fsaverage\('fsaverage6'\)"),
        ({"space": "onavg"}, "space onavg needs two flat surfaces .*mris_flatten"),
        ({"space": "T1w"}, "each subject's own"),
        ({"space": "fsnative"}, "each subject's own"),
    ],
)
def test_missing_surfaces_are_named_with_where_they_come_from(given, says):
    with pytest.raises(DataError, match=rf"^data.surfaces.flat: .*{says}"):
        surfaces.load(settings(**given))


def test_a_mesh_of_files_needs_a_region(files):
    with pytest.raises(DataError, match=r"^data.region: must name labels"):
        surfaces.load(settings(surfaces={"flat": files.flat}))


def test_volumes_need_white_and_pial(files):
    with pytest.raises(DataError, match=r"white and the pial surface"):
        load(files, space="MNI152NLin6Asym")
    loaded = load(files, space="MNI152NLin6Asym", white=files.white)
    assert loaded.left.white is not None


def test_exchanged_hemispheres_are_noticed(files):
    with pytest.raises(
        DataError, match=r"right.flat.surf.gii: holds CortexRight, must hold the left"
    ):
        load(files, flat=files.flat[::-1])
    with pytest.raises(
        DataError, match=r"right.pial.surf.gii: holds CortexRight, must hold the left"
    ):
        load(files, pial=files.pial[::-1])
    places = {}  # of no metadata
    for side, one in files.sheets.items():
        points = one.pial * [-1, 1, 1]
        path = files.folder / f"{side}.mirrored.surf.gii"
        places[side] = write_surface(path, points, one.faces, None)
    with pytest.raises(
        DataError, match=r"left.mirrored.surf.gii: lies to the right of right\.mirrored\S+; left c"
    ):
        load(files, pial=(places["left"], places["right"]))


def test_files_that_are_no_flat_surface_are_rejected(files, tmp_path):
    left = files.sheets["left"]
    fewer = write_surface(tmp_path / "fewer.gii", np.eye(3), np.array([[0, 1, 2]]), None)
    with pytest.raises(
        DataError, match=rf"fewer.gii: has 3 vertices, left.flat.surf.gii of .* {len(left.flat)}"
    ):
        load(files, pial=(fewer, files.pial[1]))
    with pytest.raises(
        DataError, match=r"left.pial.surf.gii: not a flat surface: .* -5.0 to 5.0 mm"
    ):
        load(files, flat=files.pial, pial=None)
    with pytest.raises(DataError, match=r"left.label.gii: no surface GIFTI"):
        load(files, flat=files.gifti)
    outside = write_surface(tmp_path / "outside.gii", left.flat, left.faces + 100, None)
    with pytest.raises(DataError, match=r"outside.gii: no surface GIFTI"):
        load(files, flat=(outside, files.flat[1]))
    nan = write_surface(tmp_path / "nan.gii", left.flat * np.nan, left.faces, None)
    with pytest.raises(DataError, match=r"nan.gii: has coordinates that are not finite"):
        load(files, flat=(nan, files.flat[1]))
    with pytest.raises(DataError, match=r"nan.gii: has coordinates that are not finite"):
        load(files, pial=(nan, files.pial[1]))
    lost = tmp_path / "lost.gii"
    with pytest.raises(DataError, match=r"lost.gii: no such file"):
        load(files, flat=(lost, files.flat[1]))
    whole = files.flat[0].read_bytes()
    cut = tmp_path / "cut.gii"
    for part in (0, 0.3, 0.6, 0.9, 0.999):
        cut.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(DataError, match=r"cut.gii: (truncated or )?no "):
            load(files, flat=(cut, files.flat[1]))
