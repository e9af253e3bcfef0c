"""The objects of the procedural clips as signed distances, and what they move before."""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

# ---------------------------------------------------------------------------------- shapes
# A shape is drawn once on a fine grid over [-reach, reach]^2 (x to the right, y down, the object
# within the unit circle) and kept as signed distances: body, shaded part, light part, dark part.

GRID, REACH = 320, 1.6


def _circle(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float | None = None):
    return ((x - cx) / rx) ** 2 + ((y - cy) / (ry or rx)) ** 2 <= 1


def _box(x: np.ndarray, y: np.ndarray, x0: float, y0: float, x1: float, y1: float):
    return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)


def _polygon(x: np.ndarray, y: np.ndarray, *corners: tuple[float, float]):
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


Parts = tuple[Bool[np.ndarray, "y x"] | None, ...]


def _ball(x, y) -> Parts:
    body = _circle(x, y, 0, 0, 0.9)
    band = np.abs(y - 0.25 * x**2 + 0.1) < 0.2
    return body, body & (y - 0.25 * x**2 > 0.1), body & band, None


def _star(x, y) -> Parts:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.46, 1.05)
    corners = [
        (float(r * np.cos(a)), float(r * np.sin(a) + 0.05))
        for r, a in zip(radii, angles, strict=True)
    ]
    eyes = _circle(x, y, -0.17, -0.06, 0.085, 0.13) | _circle(x, y, 0.17, -0.06, 0.085, 0.13)
    mouth = _circle(x, y, 0, 0.17, 0.2, 0.15) & (y > 0.17)
    return _polygon(x, y, *corners), None, None, eyes | mouth


def _house(x, y) -> Parts:
    roof = _polygon(x, y, (-1.0, -0.12), (0.0, -0.95), (1.0, -0.12))
    chimney = _box(x, y, 0.42, -0.88, 0.66, -0.3)
    wall = _box(x, y, -0.74, -0.12, 0.74, 0.8)
    window = _box(x, y, -0.52, 0.08, -0.1, 0.44)
    door = _box(x, y, 0.14, 0.12, 0.5, 0.8)
    return wall | roof | chimney, roof | chimney, window, door


def _fish(x, y) -> Parts:
    body = _circle(x, y, 0.2, 0, 0.78, 0.52)
    tail = _polygon(x, y, (-0.4, 0), (-1.0, -0.56), (-0.84, 0), (-1.0, 0.56))
    fin = _polygon(x, y, (-0.15, -0.4), (0.05, -0.82), (0.5, -0.42))
    stripe = body & (np.abs(x + 0.18 - 0.25 * y**2) < 0.1)
    eye, pupil = _circle(x, y, 0.6, -0.12, 0.18), _circle(x, y, 0.64, -0.12, 0.09)
    return body | tail | fin, tail | fin | stripe, eye, pupil


def _car(x, y) -> Parts:
    lower = _box(x, y, -1.0, -0.08, 1.0, 0.42) & (y > 0.6 * (np.abs(x) - 0.96) - 0.08)
    cabin = _polygon(x, y, (-0.66, -0.05), (-0.44, -0.6), (0.28, -0.6), (0.62, -0.05))
    wheels = _circle(x, y, -0.52, 0.42, 0.27) | _circle(x, y, 0.54, 0.42, 0.27)
    hubs = _circle(x, y, -0.52, 0.42, 0.11) | _circle(x, y, 0.54, 0.42, 0.11)
    rear = _polygon(x, y, (-0.5, -0.1), (-0.36, -0.48), (-0.1, -0.48), (-0.1, -0.1))
    front = _polygon(x, y, (0.04, -0.1), (0.04, -0.48), (0.22, -0.48), (0.44, -0.1))
    lamp = _circle(x, y, 0.9, 0.08, 0.1)
    return lower | cabin | wheels, None, rear | front | hubs | lamp, wheels & ~hubs


def _tree(x, y) -> Parts:
    tiers = [
        _polygon(x, y, (0, -1.05), (-0.46, -0.42), (0.46, -0.42)),
        _polygon(x, y, (0, -0.75), (-0.64, 0.06), (0.64, 0.06)),
        _polygon(x, y, (0, -0.4), (-0.82, 0.58), (0.82, 0.58)),
    ]
    trunk = _box(x, y, -0.15, 0.58, 0.15, 0.98)
    edges = (np.abs(y + 0.36) < 0.07) & tiers[1] | (np.abs(y - 0.12) < 0.07) & tiers[2]
    return tiers[0] | tiers[1] | tiers[2] | trunk, edges, None, trunk


def _heart(x, y) -> Parts:
    a, b = 1.2 * x, -1.2 * y + 0.12
    body = (a**2 + b**2 - 1) ** 3 - a**2 * b**3 <= 0
    shine = _circle(x, y, -0.46, -0.42, 0.2, 0.13)
    shade = body & ~_circle(x, y, -0.22, -0.3, 1.0)
    return body, shade, shine, None


def _bird(x, y) -> Parts:
    body = _circle(x, y, -0.02, 0.2, 0.62, 0.42)
    head = _circle(x, y, 0.48, -0.28, 0.33)
    neck = _polygon(x, y, (0.18, -0.2), (0.74, -0.2), (0.56, 0.3), (0.0, 0.3))
    tail = _polygon(x, y, (-0.45, 0.1), (-1.05, -0.3), (-0.98, 0.12), (-0.5, 0.4))
    wing = _polygon(x, y, (0.22, 0.12), (-0.02, 0.5), (-0.44, 0.3), (-0.5, -0.72), (-0.1, -0.34))
    beak = _polygon(x, y, (0.76, -0.42), (1.12, -0.22), (0.76, -0.1))
    legs = _box(x, y, -0.16, 0.55, -0.06, 0.92) | _box(x, y, 0.12, 0.55, 0.22, 0.92)
    eye, pupil = _circle(x, y, 0.54, -0.34, 0.13), _circle(x, y, 0.57, -0.34, 0.07)
    whole = body | head | neck | tail | wing | beak | legs
    return whole, wing | tail, eye, beak | legs | pupil


_DRAWINGS: dict[str, Callable[..., Parts]] = {
    "ball": _ball,
    "star": _star,
    "house": _house,
    "fish": _fish,
    "car": _car,
    "tree": _tree,
    "heart": _heart,
    "bird": _bird,
}


@cache
def shapes(category: str) -> tuple[Float[np.ndarray, "y x"] | None, ...]:
    """Signed distances of the four parts of a category, in radii."""
    cell = 2 * REACH / GRID
    axis = (np.arange(GRID) + 0.5) * cell - REACH
    x, y = np.meshgrid(axis, axis)

    def signed_distance(part: Bool[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
        outside, inside = (np.asarray(distance_transform_edt(mask)) for mask in (~part, part))
        return ((outside - inside) * cell).astype(np.float32)

    return tuple(
        None if part is None else signed_distance(part) for part in _DRAWINGS[category](x, y)
    )


# ----------------------------------------------------------------------------- backgrounds


_TOP_AND_BOTTOM = {
    "sky": ((112, 178, 236), (206, 232, 250)),
    "grass": ((124, 158, 84), (70, 108, 44)),
    "sand": ((238, 218, 176), (204, 172, 118)),
    "sea": ((20, 128, 140), (4, 62, 84)),
    "night": ((12, 14, 40), (44, 40, 84)),
}
BACKGROUNDS = tuple(_TOP_AND_BOTTOM)


@cache
def background(name: str, size: int) -> Float[np.ndarray, "h w 3"]:
    """One period of a background; texture repeats horizontally so that a phase can roll it."""
    rng = np.random.default_rng(BACKGROUNDS.index(name))
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")

    def noise(high: float, wide: float) -> np.ndarray:
        """Smooth noise in units of its standard deviation; widths in image widths."""
        field = gaussian_filter1d(rng.standard_normal((size, size)), high * size, axis=0)
        field = gaussian_filter1d(field, wide * size, axis=1, mode="wrap")
        return (field - field.mean()) / field.std()

    top, bottom = _TOP_AND_BOTTOM[name]
    image = (1 - y)[..., None] * np.array(top) + y[..., None] * np.array(bottom)
    if name == "sky":
        cloud = np.clip(noise(0.06, 0.12) - 0.5, 0, 0.9)[..., None]
        image += cloud * (255 - image)
    elif name == "grass":
        image += 6 * noise(0.08, 0.03)[..., None]
    elif name == "sand":
        image += 4 * noise(0.03, 0.06)[..., None]
        image += 5 * np.sin(2 * np.pi * (4 * y + 0.4 * np.sin(2 * np.pi * x)))[..., None]
    elif name == "sea":
        wave = np.sin(2 * np.pi * (4 * y + 0.15 * np.sin(2 * np.pi * 2 * x)))
        image += 24 * np.clip(wave - 0.55, 0, None)[..., None]
    else:
        for star_x, star_y in rng.uniform(0.03, 0.97, size=(9, 2)):
            square = (x - star_x) ** 2 + (y - star_y) ** 2
            image += 150 * np.exp(-square / (2 * 0.014**2))[..., None]
    return np.clip(image, 0, 255).astype(np.float32)
