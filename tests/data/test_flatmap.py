"""The flat map: both directions, geometry, sides; on fsaverage5, on files, on images."""

from fractions import Fraction

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError, flatmap, surfaces
from glfa_jax.data.surfaces import Surfaces, fsaverage5
from tests.data.meshes import sheet, write_labels, write_surface

SURFACES = fsaverage5()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A mesh of files; its region is in two pieces on the left, has a hole and a notch."""
    folder = tmp_path_factory.mktemp("flat")
    flat, labels = [], []
    for side in ("left", "right"):
        one = sheet(side)
        x = one.flat[:, 0]
        keys = np.where((x < -35) | (x > -20) if side == "left" else x > -40, 1, 0)
        flat.append(write_surface(folder / f"{side}.surf.gii", one.flat, one.faces, side))
        labels.append(write_labels(folder / f"{side}.label.gii", keys, {1: "V1"}, side))
    return settings(
        space="fsLR", surfaces={"flat": flat}, region={"labels": labels, "areas": ("V1",)}
    )


def settings(**changes) -> config.Data:
    values = {"root": "study", "store": "store", "subjects": ("1",), "map_size": 32}
    return config.Data.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def mesh(data):
    return surfaces.load(data)


@pytest.fixture(
    scope="module", params=[(k, r) for k in ("built in", "files") for r in (64, 100, 256)]
)
def drawn(request, mesh):
    kind, map_size = request.param
    cortex = SURFACES if kind == "built in" else mesh
    return cortex, flatmap.build(cortex, map_size=map_size)


def waves(cortex: Surfaces, *, length: float) -> np.ndarray:
    """Waves of some 2 pi `length` mm on each hemisphere, different on both."""
    halves = [
        np.sin(side.flat[:, 0] / length + phase) * np.cos(side.flat[:, 1] / (1.1 * length))
        for side, phase in ((cortex.left, 0.3), (cortex.right, 2.0))
    ]
    return np.concatenate(halves)


def test_round_trip_keeps_a_pattern(drawn):
    cortex, flat = drawn
    pattern = waves(cortex, length=17 if cortex is SURFACES else 12)
    back = flat.to_surface(flat.to_map(pattern))
    region = cortex.region
    for half in np.split(np.arange(len(region)), [cortex.left.num_vertices]):
        inside = half[region[half]]
        assert np.corrcoef(back[inside], pattern[inside])[0, 1] > 0.99
    assert not back[~region].any()


def test_what_is_on_the_left_only_is_drawn_and_read_on_the_left_only(drawn):
    cortex, flat = drawn
    count = cortex.left.num_vertices
    rng = np.random.default_rng(0)
    pattern = 1 + rng.random(cortex.num_vertices)
    pattern[count:] = 0
    image = flat.to_map(pattern)
    left = image > 0
    right = flat.mask & ~left
    assert np.nonzero(left)[1].max() + 1 < np.nonzero(right)[1].min()
    back = flat.to_surface(image)
    assert (back[:count][cortex.left.region] > 0.9).all()
    assert not back[count:].any()


def test_positions_are_millimetres_from_the_top_left(drawn):
    cortex, flat = drawn
    parts = np.split(flat.positions, [cortex.left.num_vertices])
    tops = []
    for side, positions in zip((cortex.left, cortex.right), parts, strict=True):
        inside = side.region
        assert np.isnan(positions[~inside]).all()
        rows, columns = (positions[inside] * flat.pixel_mm).T
        x, y = side.flat[inside].T
        np.testing.assert_allclose(columns - columns.min(), x - x.min(), atol=1e-6)
        tops.append(rows + y)  # one height on both sides
    np.testing.assert_allclose(np.concatenate(tops), tops[0][0], atol=1e-6)
    assert np.nanmin(flat.positions) > 1 - 1e-9
    assert np.nanmax(flat.positions) < flat.map_size - 2 + 1e-9


def test_only_used_values_need_be_finite(drawn):
    cortex, flat = drawn
    assert flat.sides == (cortex.left.num_vertices, cortex.right.num_vertices)
    np.testing.assert_array_equal(flat.used, flat.weights.sum(axis=0) > 0)
    assert not flat.used[~cortex.region].any()
    series = np.where(flat.used, 1.0, np.nan)
    np.testing.assert_allclose(flat.to_map(series), flat.mask, atol=1e-6)


@pytest.mark.parametrize("map_size", [17, 24])
def test_weights_equal_a_slow_search_of_every_triangle(mesh, map_size):
    flat = flatmap.build(mesh, map_size=map_size)
    rng = np.random.default_rng(1)
    values = rng.normal(size=mesh.num_vertices)
    expected = np.zeros((map_size, map_size))
    on_edge = np.zeros((map_size, map_size), bool)
    offset = mesh.left.num_vertices
    faces = np.concatenate([mesh.left.region_faces, mesh.right.region_faces + offset])
    corners = flat.positions[faces]
    origin, sides = corners[:, 0], np.swapaxes(corners[:, 1:] - corners[:, :1], 1, 2)
    for row in range(map_size):
        for column in range(map_size):
            parts = np.linalg.solve(sides, ((row, column) - origin)[..., None])[..., 0]
            shares = np.concatenate([1 - parts.sum(axis=1, keepdims=True), parts], axis=1)
            depth = shares.min(axis=1)
            best = depth.argmax()
            on_edge[row, column] = abs(depth[best]) < 1e-8
            if depth[best] >= 0:
                expected[row, column] = shares[best] @ values[faces[best]]
    assert not on_edge.any()
    np.testing.assert_array_equal(flat.mask, expected != 0)
    np.testing.assert_allclose(flat.to_map(values), expected, atol=1e-6)


def slow_image(mask: np.ndarray, values: np.ndarray, map_size: int):
    """Signal and mask of a resized image, pixel by pixel in exact fractions."""
    rows, columns = np.nonzero(mask == 1)
    crop = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    mask, values = mask[crop], values[crop]

    def centre(pixel: int, size: int) -> Fraction:
        return Fraction(2 * pixel + 1, 2) * Fraction(size, map_size) - Fraction(1, 2)

    def nearest(place: Fraction, size: int) -> int:
        return min(range(size), key=lambda i: (abs(place - i), -i))  # equally near: the later

    signal, inside = np.zeros((map_size, map_size)), np.zeros((map_size, map_size), bool)
    for i in range(map_size):
        for j in range(map_size):
            place = [centre(index, size) for index, size in zip((i, j), mask.shape, strict=True)]
            inside[i, j] = mask[tuple(map(nearest, place, mask.shape))] == 1
            shares = [
                [max(0, 1 - abs(min(max(p, 0), size - 1) - k)) for k in range(size)]
                for p, size in zip(place, mask.shape, strict=True)
            ]
            share = np.outer(*(np.array(s, float) for s in shares)) * (mask != 0)
            if inside[i, j]:
                signal[i, j] = (share * values).sum() / share.sum()
    return signal, inside


@pytest.mark.parametrize(("shape", "map_size"), [((45, 71), 16), ((37, 23), 19), ((15, 14), 33)])
def test_an_image_is_resized_as_a_slow_computation_says(shape, map_size):
    rng = np.random.default_rng(2)
    mask = rng.choice([-1, 0, 1], shape, p=[0.2, 0.2, 0.6])
    mask[:4] = mask[:, -3:] = 0
    mask[:, 5] = -1
    values = np.where(mask == 0, np.nan, rng.normal(size=shape))
    flat = flatmap.from_image(mask.astype(np.int8), map_size=map_size)
    expected, inside = slow_image(mask, np.nan_to_num(values), map_size)
    np.testing.assert_array_equal(flat.mask, inside)
    got = flat.to_map(np.stack([values.ravel(), 2 * values.ravel()]))
    np.testing.assert_allclose(got, np.stack([expected, 2 * expected]), atol=1e-6)
    assert flat.sides == (mask.size,)
    assert flat.pixel_mm is None
    assert not flat.used[mask.ravel() == 0].any()


@pytest.mark.parametrize("map_size", [40, 64, 101])
def test_an_image_comes_back_from_the_map(map_size):
    rows, columns = np.indices((101, 243))
    mask = np.where(np.hypot(rows - 50, (columns - 80) / 1.5) < 30, 1, -1)
    mask[np.hypot(rows - 40, columns - 60) < 6] = 0
    mask[20:80, 180:220] = 1
    values = np.sin(rows / 9) * np.cos(columns / 14) + columns / 100
    flat = flatmap.from_image(mask.astype(np.int8), map_size=map_size)
    back = flat.to_surface(flat.to_map(values.ravel())).reshape(mask.shape)
    region = mask == 1
    assert np.corrcoef(back[region], values[region])[0, 1] > 0.99
    assert not back[~region].any()
    # Positions fill the map, and what lies at a position is drawn there.
    positions = flat.positions.reshape(*mask.shape, 2)
    assert np.isnan(positions[~region]).all()
    assert -0.5 < np.nanmin(positions) < 1
    assert map_size - 2 < np.nanmax(positions) < map_size - 0.5
    there = flat.to_map(columns.ravel().astype(float))
    row, column = np.rint(positions[50, 200]).astype(int)
    assert there[row, column] == pytest.approx(200, abs=2.2)


def test_the_map_of_a_study_follows_its_layout(data, mesh, tmp_path):
    mask = np.zeros((1, 20, 30), np.int8)
    mask[0, 2:18, 5:25] = 1
    np.savez(tmp_path / "vc_roi.npz", images=mask)
    fudan = {"layout": "fudan", "root": tmp_path}
    np.save(tmp_path / "other.npy", mask[0, :10])
    assert flatmap.of(settings(**fudan)).sides == (600,)
    other = settings(**fudan, region={"mask": tmp_path / "other.npy"})
    assert flatmap.of(other).sides == (300,)
    for made, want in ((data, mesh), (settings(), SURFACES)):
        got, expected = flatmap.of(made), flatmap.build(want, map_size=32)
        assert (got.weights != expected.weights).nnz == 0
        assert got.sides == (want.left.num_vertices, want.right.num_vertices)


def test_a_study_without_a_map_is_rejected(data, tmp_path):
    with pytest.raises(DataError, match=r"vc_roi.npz: no such file"):
        flatmap.of(settings(layout="fudan", root=tmp_path))
    with pytest.raises(DataError, match=r"data.region.labels: scans of layout fudan are images"):
        flatmap.of(settings(layout="fudan", root=tmp_path, region=data.region))
    with pytest.raises(DataError, match=r"data.map_size: must be at least 16, is 15"):
        flatmap.of(settings(map_size=15))
    with pytest.raises(DataError, match=r"mask: has no pixel of the region"):
        flatmap.from_image(-np.ones((20, 20), np.int8), map_size=16)


@pytest.fixture(scope="module", params=[32, 64, 128])
def cortex(request):
    return flatmap.build(SURFACES, map_size=request.param)


def test_round_trip_keeps_a_slope_on_a_coarse_map():
    cortex = flatmap.build(SURFACES, map_size=32)
    pattern = np.concatenate([SURFACES.left.flat[:, 1], SURFACES.right.flat[:, 0]])
    back = cortex.to_surface(cortex.to_map(pattern))
    region = SURFACES.region
    assert np.corrcoef(back[region], pattern[region])[0, 1] > 0.99


def test_zero_outside_the_mask_and_a_mean_inside(cortex):
    ones = np.ones((2, 3, SURFACES.num_vertices), np.float32)
    image = cortex.to_map(ones)
    assert image.shape == (2, 3, cortex.map_size, cortex.map_size)
    np.testing.assert_allclose(image, np.broadcast_to(cortex.mask, image.shape), atol=1e-6)
    assert 0.45 < cortex.mask.mean() < 0.9


def test_sides_never_swap(cortex):
    left_only = np.concatenate([np.ones(10_242), np.zeros(10_242)])
    left, right = cortex.to_map(left_only) > 0, cortex.to_map(1 - left_only) > 0
    assert not (left & right).any()
    assert np.nonzero(left)[1].max() < np.nonzero(right)[1].min() - 1
    assert left.sum() == pytest.approx(right.sum(), rel=0.2)
    back = cortex.to_surface(left.astype(np.float32))
    region = SURFACES.region
    np.testing.assert_allclose(back[region], left_only[region], atol=1e-6)


def test_dorsal_is_up(cortex):
    height = np.concatenate([SURFACES.left.inflated[:, 2], SURFACES.right.inflated[:, 2]])
    image = cortex.to_map(height)
    rows = np.nonzero(cortex.mask)[0]
    assert np.corrcoef(rows, image[cortex.mask])[0, 1] < -0.7


def test_a_vertex_appears_where_its_position_says(cortex):
    pattern = np.zeros(SURFACES.num_vertices)
    rows, columns = np.indices(cortex.mask.shape)
    for vertex in np.flatnonzero(SURFACES.region)[::500]:
        pattern[:] = 0
        pattern[vertex] = 1
        image = cortex.to_map(pattern)
        if image.sum() > 0:
            distance = np.hypot(
                rows - cortex.positions[vertex, 0], columns - cortex.positions[vertex, 1]
            )
            assert distance[image > 0].max() * cortex.pixel_mm < 8


def test_too_small_a_map_and_a_wrong_length_are_rejected(cortex):
    with pytest.raises(ValueError, match="at least 16"):
        flatmap.build(SURFACES, map_size=8)
    with pytest.raises(ValueError, match="must have length 20484, has 7"):
        cortex.to_map(np.zeros(7))
