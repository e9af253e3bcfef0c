"""Procedural captioned clips: one object of a category, colour and motion before a background.

Pure numpy; a clip is fixed by its `Scene`. The two label spaces are what a frame can show
(category x colour) and what only a video can show (category x motion).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from glfa_jax.simulate.drawings import BACKGROUNDS, GRID, REACH, background, shapes

CATEGORIES = ("ball", "star", "house", "fish", "car", "tree", "heart", "bird")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "spin", "still")
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

RADIUS = {"small": 0.24, "large": 0.32}  # of the image's width
TRAVEL = 0.28  # way of a moving object over the clip, of the image's width
GROWTH = {"grow": (0.8, 1.5), "shrink": (1.2, 0.5)}  # first and last radius over the nominal one
SPIN = 120.0  # degrees a second, clockwise
_MIDDLE = (0.45, 0.55)  # where a moving object starts, of the image's width
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Scene:
    """All that a clip shows.

    x, y: centre of the object in the first moment, in image widths from the top left corner.
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
    """Per frame: centre x, y and radius in image widths, angle in radians (clockwise)."""
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
    behind = np.roll(background(scene.background, size), shift, axis=1)
    video = np.empty((len(path), size, size, 3), np.float32)
    video[:] = behind
    fill = np.array(RGB[scene.colour], np.float32)
    accent = (150, 160, 178) if scene.colour == "white" else (255, 255, 255)
    paints = (fill, 0.75 * fill, np.array(accent, np.float32), np.array((46, 34, 34), np.float32))
    parts = shapes(scene.category)
    body = parts[0]
    assert body is not None  # every category has one
    mirrored = scene.motion == "left"  # who moves to the left looks to the left
    line = max(size / 64, 0.5)  # width of lines, pixels
    for image, (x, y, radius, angle) in zip(video, path, strict=True):
        reach = radius * REACH
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
            np.clip((c * (GRID / 2 / REACH) + GRID / 2).astype(np.int32), 0, GRID - 1)
            for c in (u, v)
        )
        at = row * GRID + column
        pixels = radius * size
        box = image[low[1] : high[1], low[0] : high[0]]
        outer = body.reshape(-1)[at] * pixels
        _paint(box, np.float32(250.0), outer - 1.9 * line)  # light rim, then dark outline
        _paint(box, paints[3], outer - 0.9 * line)
        for paint, shape in zip(paints, parts, strict=True):
            if shape is None:
                continue
            distance = outer if shape is body else shape.reshape(-1)[at] * pixels
            _paint(box, paint, distance)
    return np.rint(video).astype(np.uint8)


def _paint(box: np.ndarray, colour: np.ndarray | np.float32, distance: np.ndarray) -> None:
    """Blends colour into box where the signed distance (pixels) is below zero."""
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    box += alpha * (colour - box)


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
