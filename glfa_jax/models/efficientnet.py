"""EfficientNet in transformers' layout (EfficientNetModel), as a frozen extractor of features.

Source: Tan & Le 2019. Batch norms use their stored statistics; dropout, which acts in training
alone, is left out.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from glfa_jax.models import pretrained_config

_DEFAULTS = {
    "width_coefficient": 2.0,
    "depth_coefficient": 3.1,
    "depth_divisor": 8,
    "kernel_sizes": (3, 3, 5, 3, 5, 5, 3),
    "in_channels": (32, 16, 24, 40, 80, 112, 192),
    "out_channels": (16, 24, 40, 80, 112, 192, 320),
    "strides": (1, 2, 2, 2, 1, 2, 1),
    "num_block_repeats": (1, 2, 2, 3, 3, 4, 1),
    "expand_ratios": (1, 6, 6, 6, 6, 6, 6),
    "squeeze_expansion_ratio": 0.25,
    "hidden_dim": 2560,
    "batch_norm_eps": 0.001,
}
_STAGES = (
    *("kernel_sizes", "in_channels", "out_channels"),
    *("strides", "num_block_repeats", "expand_ratios"),
)
_STEM, _TOP = 32, 1280  # channels, before they are scaled
_MOST_BLOCKS = 200  # EfficientNet-B7 has 55


class _StoredNorm(nn.Module):
    """Batch norm with the statistics of training."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        zeros, ones, shape = nn.initializers.zeros, nn.initializers.ones, (x.shape[-1],)
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean = self.param("running_mean", zeros, shape)
        variance = self.param("running_var", ones, shape)
        return (x - mean) * (scale * jax.lax.rsqrt(variance + self.epsilon)) + bias


class _Block(nn.Module):
    """Inverted residual with squeeze and excitation (EfficientNetBlock).

    symmetric: padded alike on all sides where it halves the image; else the sides after have more.
    """

    before: int
    after: int
    kernel: int
    stride: int
    expand: int
    squeezed: int
    symmetric: bool
    adds_input: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 k"]:
        def pointwise(name: str, width: int, y: Array, use_bias: bool = False) -> Array:
            return nn.Conv(width, (1, 1), use_bias=use_bias, name=name)(y)

        def norm(name: str, y: Array) -> Array:
            return _StoredNorm(self.epsilon, name=name)(y)

        y, width = x, self.before * self.expand
        if self.expand > 1:
            y = pointwise("expansion.expand_conv", width, y)
            y = jax.nn.silu(norm("expansion.expand_bn", y))
        half = self.kernel // 2
        first = half if self.stride == 1 or self.symmetric else half - 1
        y = nn.Conv(
            width,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=((first, half), (first, half)),
            feature_group_count=width,
            use_bias=False,
            name="depthwise_conv.depthwise_conv",
        )(y)
        y = jax.nn.silu(norm("depthwise_conv.depthwise_norm", y))
        gate = y.mean((1, 2), keepdims=True)
        gate = jax.nn.silu(pointwise("squeeze_excite.reduce", self.squeezed, gate, True))
        y = y * jax.nn.sigmoid(pointwise("squeeze_excite.expand", width, gate, True))
        y = norm("projection.project_bn", pointwise("projection.project_conv", self.after, y))
        return x + y if self.adds_input else y


class EfficientNet(nn.Module):
    """EfficientNetModel with mean pooling; fields as in its config.json."""

    width_coefficient: float
    depth_coefficient: float
    depth_divisor: int
    kernel_sizes: tuple[int, ...]
    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]
    strides: tuple[int, ...]
    num_block_repeats: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    squeeze_expansion_ratio: float
    hidden_dim: int
    batch_norm_eps: float
    depthwise_padding: tuple[int, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EfficientNet":
        """From the config.json of an EfficientNetModel or EfficientNetForImageClassification.

        Raises ValueError naming what is not supported.
        """
        picked = pretrained_config.fields(
            config,
            model="EfficientNet",
            module=cls,
            defaults=_DEFAULTS,
            allowed={
                "model_type": ("efficientnet",),
                "hidden_act": ("swish", "silu"),
                "pooling_type": ("mean",),
                "num_channels": (3,),
            },
        )
        stages: dict[str, Any] = {key: tuple(picked[key]) for key in _STAGES}
        symmetric = config.get("depthwise_padding", ())
        made = cls(**picked | stages, depthwise_padding=symmetric)
        problems = []
        if len({*map(len, stages.values())}) > 1:
            problems = [f"{', '.join(_STAGES)} must have equally many entries, one a stage"]
        if bad := sorted(set(made.strides) - {1, 2}):
            problems.append(f"strides holds {bad[0]}, must hold 1 and 2 alone")
        if bad := [size for size in made.kernel_sizes if size % 2 == 0]:
            problems.append(f"kernel_sizes holds {bad[0]}, must be odd")
        if not isinstance(symmetric, list | tuple) or not all(type(i) is int for i in symmetric):
            problems.append(f"depthwise_padding is {symmetric!r:.60}, must list numbers of blocks")
        if (width := made.channels(_TOP)) != made.hidden_dim:
            problems.append(
                f"hidden_dim is {made.hidden_dim}, must be {width} with width_coefficient "
                f"{made.width_coefficient:g} and depth_divisor {made.depth_divisor}"
            )
        if (blocks := sum(map(made.repeats, made.num_block_repeats))) > _MOST_BLOCKS:
            problems.append(
                f"depth_coefficient and num_block_repeats make {blocks:,} blocks, must make at "
                f"most {_MOST_BLOCKS}"
            )
        if problems:
            raise ValueError("EfficientNet configuration: " + "; ".join(problems))
        return made.clone(depthwise_padding=tuple(symmetric))

    @nn.nowrap
    def channels(self, width: int) -> int:
        """A width scaled, to the next multiple of the divisor that is at least nine tenths."""
        scaled, divisor = width * self.width_coefficient, self.depth_divisor
        rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
        return int(rounded + divisor if rounded < 0.9 * scaled else rounded)

    @nn.nowrap
    def repeats(self, blocks: int) -> int:
        return math.ceil(self.depth_coefficient * blocks)

    @nn.nowrap
    def _blocks(self) -> Iterator[_Block]:
        number = 0
        for stage in zip(*(getattr(self, key) for key in _STAGES), strict=True):
            kernel, before, after, stride, repeats, expand = stage
            before, after = self.channels(before), self.channels(after)
            for i in range(self.repeats(repeats)):
                before = after if i else before
                yield _Block(
                    before=before,
                    after=after,
                    kernel=kernel,
                    stride=1 if i else stride,
                    expand=expand,
                    squeezed=max(1, int(before * self.squeeze_expansion_ratio)),
                    symmetric=number in self.depthwise_padding,
                    adds_input=i > 0,
                    epsilon=self.batch_norm_eps,
                    name=f"encoder.blocks.{number}",
                )
                number += 1

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """The last feature map averaged over places, `hidden_dim` values.

        `image`: of any size, normalised as the model's preprocessor_config.json says.
        """

        def norm(name: str, y: Array) -> Array:
            return jax.nn.silu(_StoredNorm(self.batch_norm_eps, name=name)(y))

        x = nn.Conv(
            self.channels(_STEM),
            (3, 3),
            strides=2,
            padding=((0, 1), (0, 1)),
            use_bias=False,
            name="embeddings.convolution",
        )(image)
        x = norm("embeddings.batchnorm", x)
        for block in self._blocks():
            x = block(x)
        x = nn.Conv(self.hidden_dim, (1, 1), use_bias=False, name="encoder.top_conv")(x)
        return norm("encoder.top_bn", x).mean((1, 2))
