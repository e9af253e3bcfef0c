"""What lies under a flat map that is drawn: how large its pixels are, and where the sulci run."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.data import flatmap, surfaces
from glfa_jax.data.layouts import layout_of
from glfa_jax.errors import InputError


def relief_of(data: config.Data, *, mask: Bool[ndarray, "h w"]) -> dict[str, Float[ndarray, "..."]]:
    """What is known of the flat map of a store with this mask.

    pixel_mm: edge of a pixel on the flat surface, mm. curvature: (h, w), 1/mm, positive in sulci,
    zero off the cortex, of the built-in mesh. What is not known is left out: maps are drawn without
    it, so that a run can be scored where the files that its data were prepared from are gone.
    """
    flat = drawn_on(data, mask=mask)
    if flat is None:
        return {}
    found = {} if flat.pixel_mm is None else {"pixel_mm": np.array(flat.pixel_mm)}
    if data.surfaces is None and layout_of(data).mask is None:  # the mesh is fsaverage5
        found["curvature"] = flat.to_map(surfaces.curvature()).astype(np.float32)
    return found


def drawn_on(data: config.Data, *, mask: Bool[ndarray, "h w"]) -> flatmap.FlatMap | None:
    """The flat map of a store with this mask; None where its files are gone or it is another."""
    try:
        flat = flatmap.of(data)
    except InputError:
        return None
    return flat if np.array_equal(flat.mask, mask) else None
