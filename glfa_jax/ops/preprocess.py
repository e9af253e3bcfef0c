"""What a transformers image processor does to images, in JAX: resize, crop, rescale, normalise.

Resizing follows Pillow, as the models were trained: a filter as wide as the shrinkage (no
aliasing), horizontal pass first, whole levels in 0..255 after each pass; so there is no gradient.
Pillow from version 13 on starts with the vertical pass at some changes of aspect ratio, which
shows at hard edges under the bicubic filter.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Shaped

from glfa_jax.errors import InputError


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys's cubic convolution kernel (1981) with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# Name -> (filter, half its width in pixels).
_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}
# Pillow's numbers.
_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}
# What transformers takes for keys that a file leaves out, by the processor's name without its
# ending; a `size` that is a number is a square for the first, the shortest edge for the others.
_ALL_ON = {"do_resize": True, "do_rescale": True, "do_normalize": True}
_HALVES = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_SQUARE = {"height": 224, "width": 224}
_CROPPED = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": _SQUARE}
_DEFAULTS: dict[str, Mapping[str, Any]] = {
    "vit": {**_ALL_ON, **_HALVES, "size": _SQUARE, "do_center_crop": False},
    "videomae": {**_ALL_ON, **_HALVES, **_CROPPED},
    "clip": {
        **_ALL_ON,
        **_CROPPED,
        "resample": 3,
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    "efficientnet": {
        **_ALL_ON,
        **_HALVES,
        "size": {"height": 346, "width": 346},
        "do_center_crop": False,
        "crop_size": {"height": 289, "width": 289},
        "resample": 3,
        "rescale_offset": False,
        "include_top": True,
    },
}
_NUMBER_IS_A_SQUARE = frozenset({"vit", "efficientnet"})
# Endings of a processor's name, by version of transformers.
_ENDINGS = re.compile("(FeatureExtractor|ImageProcessor(Fast|Pil)?)$")
_LARGEST_SIDE = 10_000  # pixels; a table as wide is computed for each side that is resized
_LARGEST_LEVEL = 1e6


def resize_matrix(length: int, *, to: int, method: str) -> Float64[np.ndarray, "to length"]:
    """Weights that resample one axis; every row sums to one."""
    if method == "nearest":
        # Pillow adds up the steps one by one, and what that rounds decides between two pixels.
        places = np.add.accumulate([length / to * 0.5, *[length / to] * (to - 1)])
        return np.eye(length)[np.minimum(places.astype(int), length - 1)]
    kernel, radius = _FILTERS[method]
    scale = length / to
    stretch = max(scale, 1.0)
    centre = (np.arange(to)[:, None] + 0.5) * scale
    pixel = np.arange(length)[None] + 0.5
    # Pillow takes whole pixels between the rounded ends of the filter's support.
    first = np.maximum(np.floor(centre - radius * stretch + 0.5), 0)
    last = np.minimum(np.floor(centre + radius * stretch + 0.5), length)
    inside = (pixel > first) & (pixel < last)
    weights = np.where(inside, kernel((pixel - centre) / stretch), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def resize(
    image: Float[Array, "*b h w c"], *, height: int, width: int, method: str
) -> Float[Array, "*b height width c"]:
    """Resizes levels in 0..255 to whole levels; `method`: "nearest", "bilinear" or "bicubic"."""
    for axis, equation, to in (
        (-2, "xw,...hwc->...hxc", width),
        (-3, "yh,...hwc->...ywc", height),
    ):
        if image.shape[axis] == to:
            continue
        # Pillow's weights have 22 binary places, and where a sum lies midway between two levels
        # the last place decides. Two halves of a weight keep every step exact in float32.
        weights = np.round(resize_matrix(image.shape[axis], to=to, method=method) * 2.0**22)
        coarse = np.round(weights / 2.0**11) * 2.0**11
        high, low = (
            jnp.einsum(equation, part.astype(np.float32) / 2.0**22, image, precision="highest")
            for part in (coarse, weights - coarse)
        )
        whole = jnp.floor(high + 0.5)
        image = jnp.clip(whole + jnp.floor((high + 0.5 - whole) + low), 0.0, 255.0)
    return image


def centre_crop(
    image: Float[Array, "*b h w c"], *, height: int, width: int
) -> Float[Array, "*b height width c"]:
    """The middle of each image; raises when the image is smaller."""
    h, w = image.shape[-3:-1]
    if h < height or w < width:
        raise InputError(
            f"centre crop: images are {h} by {w}, must be at least {height} by {width}"
        )
    top, left = (h - height) // 2, (w - width) // 2
    return image[..., top : top + height, left : left + width, :]


@dataclass(frozen=True)
class Preprocessor:
    """A transformers image processor; steps that are off are None.

    `size`: (height, width), or the length of the shortest edge, the aspect ratio kept. `scale`:
    what levels in 0..255 are multiplied by before `mean` and `std` apply.
    """

    size: tuple[int, int] | int | None
    method: str
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, model: str | None = None) -> "Preprocessor":
        """From a preprocessor_config.json; rejects by name what is not supported.

        model: "clip", "vit", "video_mae" or "efficientnet", whose processor a file without a name
        means. What the file leaves out is as transformers has it for that processor, and a switch
        that is null is off; of another one, switches follow the other keys: a size means resizing,
        and so on.
        """
        model = (model or "").replace("_", "")
        named = config.get("image_processor_type", config.get("feature_extractor_type"))
        if isinstance(named, str):
            model = _ENDINGS.sub("", named).lower()
        if model in _DEFAULTS:
            off = {key: False for key, x in config.items() if key.startswith("do_") and x is None}
            config = {**_DEFAULTS[model], **config, **off}

        def on(switch: str, key: str) -> bool:
            given = config.get(key) is not None
            wanted = config.get(switch)
            if wanted and not given:
                raise ValueError(f"preprocessor configuration: {switch} is true, {key} is missing")
            return given if wanted is None else bool(wanted)

        for switch, value in config.items():
            if switch.startswith("do_") and not isinstance(value, bool | None):
                raise ValueError(
                    f"preprocessor configuration: {switch:.60} is {value!r:.60}, must be true or "
                    "false"
                )
        for switch in ("do_pad", "do_reduce_labels", "do_flip_channel_order"):
            if config.get(switch):
                raise ValueError(f"preprocessor configuration: {switch} is not supported")
        size, method = None, "bilinear"
        if on("do_resize", "size"):
            size = _size(config["size"], key="size")
            if model in _NUMBER_IS_A_SQUARE and isinstance(config["size"], int):
                size = (config["size"], config["size"])
            resample = config.get("resample", 2)
            if type(resample) is not int or resample not in _RESAMPLE:
                raise ValueError(
                    f"preprocessor configuration: resample is {resample!r:.60}, supported is "
                    "0 (nearest), 2 (bilinear) or 3 (bicubic)"
                )
            method = _RESAMPLE[resample]
        crop = None
        if on("do_center_crop", "crop_size"):
            crop = _size(config["crop_size"], key="crop_size")
            crop = (crop, crop) if isinstance(crop, int) else crop
            # Of a shortest edge, the other one depends on the image.
            short = isinstance(size, int) and min(crop) > size
            if short or (isinstance(size, tuple) and (crop[0] > size[0] or crop[1] > size[1])):
                raise ValueError(
                    f"preprocessor configuration: crop_size is {crop}, larger than size, {size}"
                )
        scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        (scale,) = _numbers([scale], key="rescale_factor", count=1, above=0)
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if on("do_normalize", "image_mean"):
            mean = _numbers(config["image_mean"], key="image_mean", count=3)
            std = _numbers(config.get("image_std"), key="image_std", count=3, above=0)
        if model == "efficientnet":
            mean, std = _efficientnet(config, mean=mean, std=std)
        return cls(size=size, method=method, crop=crop, scale=scale, mean=mean, std=std)

    def __call__(
        self, image: Shaped[Array | np.ndarray, "*b h w 3"]
    ) -> Float[Array, "*b height width 3"]:
        """`image`: images or videos as uint8 levels, or as floats in [-1, 1]."""
        if image.dtype == jnp.uint8:
            image = jnp.asarray(image, jnp.float32)
        elif jnp.issubdtype(image.dtype, jnp.floating):
            image = (jnp.asarray(image, jnp.float32) + 1.0) * 127.5
        else:
            raise ValueError(
                f"preprocessor: images are {image.dtype}, must be uint8 or float in [-1, 1]"
            )
        if self.size is not None:
            height, width = self._target(image.shape[-3], image.shape[-2])
            image = resize(image, height=height, width=width, method=self.method)
        if self.crop is not None:
            image = centre_crop(image, height=self.crop[0], width=self.crop[1])
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        return (image * self.scale - mean) / std

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        assert self.size is not None
        short = min(height, width)
        # The longer edge is cut to a whole number, not rounded.
        return self.size * height // short, self.size * width // short


def _efficientnet(
    config: Mapping[str, Any], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation with the two switches of this processor: levels one lower when they are
    rescaled, and everything divided by the deviation once more, as its classifier was trained."""
    for switch in ("rescale_offset", "include_top"):
        if not isinstance(config[switch], bool | None):
            raise ValueError(
                f"preprocessor configuration: {switch} is {config[switch]!r:.60}, must be true or "
                "false"
            )
    if config["rescale_offset"] and config["do_rescale"]:
        mean = tuple(value + 1.0 for value in mean)
    if config["include_top"]:
        again = _numbers(config["image_std"], key="image_std", count=3, above=0)
        # What is subtracted is subtracted before the first division.
        std = tuple(a * b for a, b in zip(std, again, strict=True))
    return mean, std


def _size(value: Any, *, key: str) -> tuple[int, int] | int:
    """A size as the files write it: a number, {shortest_edge} or {height, width}."""
    sides = [value]
    for keys in (["shortest_edge"], ["height", "width"]):
        if isinstance(value, Mapping) and value.keys() == set(keys):
            sides = [value[key] for key in keys]
    if not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in sides):
        raise ValueError(
            f"preprocessor configuration: {key} is {value!r:.60}, supported is a number, "
            f"shortest_edge alone, or height and width, from 1 to {_LARGEST_SIDE:,}"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def _numbers(
    values: Any, *, key: str, count: int, above: float = -_LARGEST_LEVEL
) -> tuple[float, ...]:
    fits = isinstance(values, list | tuple) and len(values) == count
    if not fits or not all(
        type(value) in (int, float) and above < value < _LARGEST_LEVEL for value in values
    ):
        raise ValueError(
            f"preprocessor configuration: {key} is {values!r:.60}, must be {count} finite numbers"
            + (" above 0" if above == 0 else "")
        )
    return tuple(values)
