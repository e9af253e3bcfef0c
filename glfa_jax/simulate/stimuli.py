"""Procedural captioned clips: one object of a category, colour and motion before a background.

Pure numpy; a clip is fixed by its `Scene`. The two label spaces are what a frame can show
(category x colour) and what only a video can show (category x motion).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

CATEGORIES = ("ball", "star", "house", "fish", "car", "tree", "heart", "bird")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "spin", "still")
BACKGROUNDS = ("sky", "grass", "sand", "sea", "night")
SIZES = ("small", "large")

FRAME_CLASSES = tuple(f"{colour} {category}" for category in CATEGORIES for colour in COLOURS)
VIDEO_CLASSES = tuple(f"{category} {motion}" for category in CATEGORIES for motion in MOTIONS)

RGB = {
    "red": (222, 30, 38),
    "orange": (255, 136, 12),
    "yellow": (255, 226, 40),
    "green": (36, 178, 64),
    "blue": (32, 84, 232),
    "purple": (132, 44, 178),
    "pink": (255, 128, 190),
    "white": (252, 252, 252),
}

RADIUS = {"small": 0.24, "large": 0.32}  # of the picture's width
TRAVEL = 0.28  # way of a moving object over the clip, of the picture's width
GROWTH = {"grow": (0.8, 1.5), "shrink": (1.2, 0.5)}  # first and last radius over the nominal one
SPIN = 120.0  # degrees a second, clockwise
_MIDDLE = (0.45, 0.55)  # where a moving object starts, of the picture's width
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Scene:
    """All that a clip shows.

    x, y: centre of the object in the first moment, in picture widths from the top left corner.
    phase: in [0, 1), shifts the texture of the background.
    """

    category: str
    colour: str
    motion: str
    background: str
    size: str
    x: float
    y: float
    phase: float = 0.0

    def __post_init__(self):
        for key, allowed in (
            ("category", CATEGORIES),
            ("colour", COLOURS),
            ("motion", MOTIONS),
            ("background", BACKGROUNDS),
            ("size", SIZES),
        ):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"Scene.{key}: {getattr(self, key)!r} is none of {', '.join(allowed)}"
                )


def frame_label(scene: Scene) -> int:
    """Index into FRAME_CLASSES."""
    return CATEGORIES.index(scene.category) * len(COLOURS) + COLOURS.index(scene.colour)


def video_label(scene: Scene) -> int:
    """Index into VIDEO_CLASSES."""
    return CATEGORIES.index(scene.category) * len(MOTIONS) + MOTIONS.index(scene.motion)


_TIMES_TWO = (0, 2, 4, 6, 3, 1, 7, 5)  # multiplication by x in the field of 8 elements


def sample_scene(rng: np.random.Generator, index: int | None = None) -> Scene:
    """A random scene; with `index`, category, colour and motion follow a balanced design.

    Any 64 scenes from a multiple of 64 on hold every pair of (category, colour), (category, motion)
    and (colour, motion) once, any 512 every triple once: orthogonal Latin squares over GF(8).
    """
    if index is None:
        a, b, c = (int(i) for i in rng.integers(0, 8, size=3))
    else:
        a, b, c = index % 8, index // 8 % 8, index // 64 % 8
    motion = MOTIONS[_TIMES_TWO[a] ^ b ^ c]
    size = SIZES[int(rng.integers(len(SIZES)))]
    radius = RADIUS[size] * max(GROWTH.get(motion, (1.0,)))
    step = DIRECTIONS.get(motion, (0, 0))
    # What moves starts near the middle and leaves to one side. If paths were spread evenly, single
    # frames would look alike whatever the direction; a generator then finds out what the word
    # means only together with the order of the frames, and learns neither.
    x, y = (
        float(rng.uniform(*(_MIDDLE if direction else (radius, 1 - radius)))) for direction in step
    )
    return Scene(
        category=CATEGORIES[a],
        colour=COLOURS[a ^ b],
        motion=motion,
        background=BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))],
        size=size,
        x=x,
        y=y,
        phase=float(rng.uniform()),
    )


def trajectory(scene: Scene, *, frames: int, frame_rate: float) -> Float[np.ndarray, "f 4"]:
    """Per frame: centre x, y and radius in picture widths, angle in radians (clockwise)."""
    progress = np.linspace(0.0, 1.0, frames) if frames > 1 else np.full(1, 0.5)
    dx, dy = DIRECTIONS.get(scene.motion, (0, 0))
    radius = np.full(frames, RADIUS[scene.size])
    if scene.motion in GROWTH:
        first, last = GROWTH[scene.motion]
        radius = radius * (first + (last - first) * progress)
    angle = np.zeros(frames)
    if scene.motion == "spin":
        angle = np.deg2rad(SPIN) * np.arange(frames) / frame_rate
    x, y = scene.x + TRAVEL * dx * progress, scene.y + TRAVEL * dy * progress
    return np.stack([x, y, radius, angle], axis=1)


def render(
    scene: Scene,
    *,
    frames: int = 6,
    size: int = 64,
    frame_rate: float = 3,
    only: Sequence[int] | None = None,
) -> UInt8[np.ndarray, "f h w 3"]:
    """Draws the clip, antialiased; movement spreads over the clip, spinning goes by the second.

    `only` draws just these frames of the clip.
    """
    path = trajectory(scene, frames=frames, frame_rate=frame_rate).astype(np.float32)
    path = path if only is None else path[list(only)]
    shift = int(scene.phase * size)
    background = np.roll(_background(scene.background, size), shift, axis=1)
    video = np.empty((len(path), size, size, 3), np.float32)
    video[:] = background
    fill = np.array(RGB[scene.colour], np.float32)
    accent = (150, 160, 178) if scene.colour == "white" else (255, 255, 255)
    paints = (fill, 0.75 * fill, np.array(accent, np.float32), np.array((46, 34, 34), np.float32))
    shapes = _shapes(scene.category)
    body = shapes[0]
    assert body is not None  # every category has one
    mirrored = scene.motion == "left"  # who moves to the left looks to the left
    line = max(size / 64, 0.5)  # width of lines, pixels
    for picture, (x, y, radius, angle) in zip(video, path, strict=True):
        reach = radius * _REACH
        # Only the box that the object can touch is drawn.
        low = [max(0, int((c - reach) * size)) for c in (x, y)]
        high = [min(size, int((c + reach) * size) + 1) for c in (x, y)]
        u, v = (
            ((np.arange(low[i], high[i], dtype=np.float32) + 0.5) / size - c) / radius
            for i, c in enumerate((x, y))
        )
        u, v = np.meshgrid(u, v)
        if angle:
            cos, sin = np.cos(angle), np.sin(angle)
            u, v = cos * u + sin * v, cos * v - sin * u
        if mirrored:
            u = -u
        column, row = (
            np.clip((c * (_GRID / 2 / _REACH) + _GRID / 2).astype(np.int32), 0, _GRID - 1)
            for c in (u, v)
        )
        at = row * _GRID + column
        pixels = radius * size
        box = picture[low[1] : high[1], low[0] : high[0]]
        outer = body.reshape(-1)[at] * pixels
        _paint(box, np.float32(250.0), outer - 1.9 * line)  # light rim, then dark outline
        _paint(box, paints[3], outer - 0.9 * line)
        for paint, shape in zip(paints, shapes, strict=True):
            if shape is None:
                continue
            distance = outer if shape is body else shape.reshape(-1)[at] * pixels
            _paint(box, paint, distance)
    return np.rint(video).astype(np.uint8)


def _paint(box: np.ndarray, colour: np.ndarray | np.float32, distance: np.ndarray) -> None:
    """Blends colour into box where the signed distance (pixels) is below zero."""
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    box += alpha * (colour - box)


# ---------------------------------------------------------------------------------- shapes
# A shape is drawn once on a fine grid over [-reach, reach]^2 (x to the right, y down, the object
# within the unit circle) and kept as signed distances: body, shaded part, light part, dark part.

_GRID, _REACH = 320, 1.6


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
def _shapes(category: str) -> tuple[Float[np.ndarray, "y x"] | None, ...]:
    """Signed distances of the four parts of a category, in radii."""
    cell = 2 * _REACH / _GRID
    axis = (np.arange(_GRID) + 0.5) * cell - _REACH
    x, y = np.meshgrid(axis, axis)

    def signed_distance(part: Bool[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
        outside, inside = (np.asarray(distance_transform_edt(mask)) for mask in (~part, part))
        return ((outside - inside) * cell).astype(np.float32)

    return tuple(
        None if part is None else signed_distance(part) for part in _DRAWINGS[category](x, y)
    )


# ----------------------------------------------------------------------------- backgrounds


@cache
def _background(name: str, size: int) -> Float[np.ndarray, "h w 3"]:
    """One period of a background; texture repeats horizontally so that a phase can roll it."""
    rng = np.random.default_rng(BACKGROUNDS.index(name))
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")

    def noise(high: float, wide: float) -> np.ndarray:
        """Smooth noise in units of its standard deviation; widths in picture widths."""
        field = gaussian_filter1d(rng.standard_normal((size, size)), high * size, axis=0)
        field = gaussian_filter1d(field, wide * size, axis=1, mode="wrap")
        return (field - field.mean()) / field.std()

    top, bottom = {
        "sky": ((112, 178, 236), (206, 232, 250)),
        "grass": ((124, 158, 84), (70, 108, 44)),
        "sand": ((238, 218, 176), (204, 172, 118)),
        "sea": ((20, 128, 140), (4, 62, 84)),
        "night": ((12, 14, 40), (44, 40, 84)),
    }[name]
    picture = (1 - y)[..., None] * np.array(top) + y[..., None] * np.array(bottom)
    if name == "sky":
        cloud = np.clip(noise(0.06, 0.12) - 0.5, 0, 0.9)[..., None]
        picture += cloud * (255 - picture)
    elif name == "grass":
        picture += 6 * noise(0.08, 0.03)[..., None]
    elif name == "sand":
        picture += 4 * noise(0.03, 0.06)[..., None]
        picture += 5 * np.sin(2 * np.pi * (4 * y + 0.4 * np.sin(2 * np.pi * x)))[..., None]
    elif name == "sea":
        wave = np.sin(2 * np.pi * (4 * y + 0.15 * np.sin(2 * np.pi * 2 * x)))
        picture += 24 * np.clip(wave - 0.55, 0, None)[..., None]
    else:
        for star_x, star_y in rng.uniform(0.03, 0.97, size=(9, 2)):
            square = (x - star_x) ** 2 + (y - star_y) ** 2
            picture += 150 * np.exp(-square / (2 * 0.014**2))[..., None]
    return np.clip(picture, 0, 255).astype(np.float32)


# -------------------------------------------------------------------------------- captions

_MOTION_WORDS = {
    "left": ("moves to the left", "slides to the left", "goes left"),
    "right": ("moves to the right", "slides to the right", "goes right"),
    "up": ("moves up", "rises slowly", "goes up"),
    "down": ("moves down", "sinks slowly", "goes down"),
    "grow": ("grows larger", "gets bigger", "comes closer"),
    "shrink": ("grows smaller", "gets smaller", "goes away"),
    "spin": ("spins around", "turns around", "rotates"),
    "still": ("stays still", "does not move", "rests"),
}
_PLACE_WORDS = {
    "sky": ("in a blue sky", "in the sky"),
    "grass": ("over green grass", "over the grass"),
    "sand": ("over yellow sand", "over the sand"),
    "sea": ("over the deep sea", "over the sea"),
    "night": ("in a dark night", "at night"),
}
_SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """One English sentence of at most 14 words; with `rng`, in one of several wordings."""

    def pick(words: tuple[str, ...]) -> str:
        return words[0] if rng is None else words[int(rng.integers(len(words)))]

    thing = f"{pick(_SIZE_WORDS[scene.size])} {scene.colour} {scene.category}"
    motion, place = pick(_MOTION_WORDS[scene.motion]), pick(_PLACE_WORDS[scene.background])
    return pick(
        (
            f"a {thing} {motion} {place}",
            f"{place} a {thing} {motion}",
            f"this {thing} {motion} {place}",
        )
    )
