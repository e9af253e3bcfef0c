"""How the scans of a study become maps, as numbers that travel: where they are, no surface is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.sparse import csr_array

from glfa_jax import config
from glfa_jax.data import flatmap, surfaces
from glfa_jax.data.cleaning.smoothing import smoother
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.layouts import layout_of
from glfa_jax.data.signals import Pixels
from glfa_jax.data.surfaces import Hemisphere, Surfaces, is_volume
from glfa_jax.errors import InputError
from glfa_jax.records import Text, decode

OUTSIDE = 1e6  # mm; what is sampled there is no number
Kind = Literal["surface", "volume", "image"]


@dataclass(frozen=True)
class Described:
    """What there is besides arrays, as JSON.

    space, kind: of the scans. sides: values of each half of a volume. clean: options of the
    cleaning, smoothing among them, which the weights hold already.
    """

    space: Text
    kind: Kind
    sides: tuple[int, ...]
    clean: dict[Text, Any]


@dataclass(frozen=True, eq=False)
class Drawing:
    """space, kind: of the scans. pixels: weights of the cortex pixels of the maps, row by row.

    cleaning: what is taken out of a run. points: of the values that any pixel needs, where they lie
    on the white and on the pial surface, mm; of volumes alone.
    """

    space: str
    kind: Kind
    pixels: Pixels
    cleaning: config.Cleaning
    points: Float[ndarray, "2 used 3"] | None = None

    @classmethod
    def of(cls, data: config.Data, *, cleaning: config.Cleaning) -> tuple["Drawing", ndarray]:
        """Made of surfaces and region, and the mask (h, w) of what is drawn.

        Raises DataError where these are not there.
        """
        flat = flatmap.of(data)
        pixels = pixels_of(data, flat, width=cleaning.smooth_mm)
        if layout_of(data).mask is not None:
            return cls(data.space, "image", pixels, cleaning), flat.mask
        if not is_volume(data.space):
            return cls(data.space, "surface", pixels, cleaning), flat.mask
        mesh = surfaces.load(data)
        points = np.stack(
            [
                np.concatenate([getattr(side, name) for side in (mesh.left, mesh.right)])
                for name in ("white", "pial")
            ]
        )[:, pixels.columns]
        return cls(data.space, "volume", pixels, cleaning, points.astype(np.float32)), flat.mask

    @property
    def mesh(self) -> Surfaces:
        """For volumes: where they are sampled; outside of any, where no pixel needs it."""
        assert self.points is not None
        places = np.full((2, sum(self.pixels.sides), 3), OUTSIDE)
        places[:, self.pixels.columns] = self.points
        halves = np.split(places, [self.pixels.sides[0]], axis=1)
        return Surfaces(self.space, *(_bare(white, pial) for white, pial in halves))

    def arrays(self) -> dict[str, ndarray]:
        """What `read` takes, beside `described`."""
        weights = self.pixels.weights
        found: dict[str, ndarray] = {
            "columns": self.pixels.columns.astype(np.int32),
            "weights": weights.data,
            "weight_columns": weights.indices.astype(np.int32),
            "row_ends": weights.indptr.astype(np.int32),
        }
        if self.pixels.walls:
            found["walls"] = np.concatenate(self.pixels.walls).astype(np.uint8)
        return found if self.points is None else found | {"points": self.points}

    def described(self) -> dict[str, Any]:
        clean = self.cleaning.comparable()
        about = asdict(Described(self.space, self.kind, self.pixels.sides, clean))
        return about | {"sides": list(self.pixels.sides)}

    @classmethod
    def read(
        cls,
        described: Mapping[str, Any],
        arrays: Mapping[str, ndarray],
        *,
        mask: Bool[ndarray, "h w"],
    ) -> "Drawing":
        """Raises InputError for what `arrays` and `described` of no drawing of this mask give."""
        about = decode(Described, dict(described))
        cleaning = config.of(about.clean, schema=config.Cleaning, source="clean")
        points = arrays.get("points")
        if (points is None) == (about.kind == "volume"):
            raise InputError("points: must be there for volumes, and for nothing else")
        pixels = _pixels(arrays, sides=about.sides, count=int(mask.sum()))
        if points is not None and points.shape != (2, len(pixels.columns), 3):
            raise InputError(f"points: {points.shape}, must be (2, {len(pixels.columns)}, 3)")
        return cls(about.space, about.kind, pixels, cleaning, points)


def pixels_of(data: config.Data, flat: FlatMap, *, width: float | None) -> Pixels:
    """Of the scans of a study; width: of smoothing along the surface, mm."""
    if width is None:
        return Pixels.of(flat)
    return Pixels.of(flat, smoother=partial(smoother, surfaces.load(data), width=width))


def _pixels(arrays: Mapping[str, ndarray], *, sides: tuple[int, ...], count: int) -> Pixels:
    kinds = {"columns": "i", "weights": "f", "weight_columns": "i", "row_ends": "i"}
    for name, kind in kinds.items():
        held = arrays.get(name)
        if held is None or held.ndim != 1 or held.dtype.kind != kind:
            raise InputError(f"{name}: missing, or no list of numbers")
    columns = arrays["columns"].astype(np.int64)
    ends, data = np.array(arrays["row_ends"]), np.array(arrays["weights"])
    total = sum(sides)
    if not len(columns) or columns[0] < 0 or columns[-1] >= total or (np.diff(columns) < 1).any():
        raise InputError(f"columns: must ascend from 0 to below {total}, the values of a volume")
    shape = (count, len(columns))
    try:
        if len(ends) != count + 1 or ends[-1] != len(data) or not np.isfinite(data).all():
            raise ValueError(f"{len(ends) - 1} rows for {count} pixels")
        weights = csr_array((data, np.array(arrays["weight_columns"]), ends), shape)
        weights.check_format(full_check=True)
    except ValueError as error:
        raise InputError(f"weights: fit no mask of {count} pixels ({error})") from None
    walls: tuple[ndarray, ...] = ()
    if "walls" in arrays:
        if arrays["walls"].shape != (total,):
            raise InputError(f"walls: {arrays['walls'].shape}, must be ({total},)")
        walls = tuple(np.split(arrays["walls"].astype(bool), np.cumsum(sides)[:-1]))
    return Pixels(columns, weights, sides, walls)


def _bare(white: Float[ndarray, "v 3"], pial: Float[ndarray, "v 3"]) -> Hemisphere:
    """A hemisphere of which nothing else is known; nilearn wants a triangle, and uses none."""
    none = np.array([[0, 1, 2]])
    nowhere = np.full((len(white), 2), np.nan)
    inside = np.zeros(len(white), bool)
    return Hemisphere(nowhere, none, inside, none, pial=pial, white=white, inflated=None)
