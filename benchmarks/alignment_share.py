"""What the GLFA layer costs in stage 2 at the published scale.

    python -m benchmarks.alignment_share --json benchmarks/results/alignment_share.json

Counted: floating-point operations of one training step on one sample, gradients included, by XLA's
cost analysis of encoder, UNet3D and VAE at full size (nothing of that size is run); those of the
layer by its formula. From them the share of the time on an accelerator whose arithmetic runs at
full speed for everything else, while the layer waits for memory: an upper bound.

Measured: on the device at hand the gradient step of the fMRI encoder alone at full size, with the
layer and without, taking turns. The UNet3D, far the larger part of a step, is left out, so the
share of the whole step is smaller still.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import median_seconds, parser, write_result
from benchmarks.models import UNET, VAE
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.glfa import GlfaLayer
from glfa_jax.models.unet3d import UNet3D
from glfa_jax.models.vae import AutoencoderKL
from glfa_jax.ops.local_conv import bounding_box

SIDE, WINDOW, TOKENS, WIDTH = 256, 5, 77, 1024  # SPEC §2, §3
FRAMES, LATENT, BATCH = 6, 32, 12  # windows over all subjects
# NVIDIA H100 SXM: dense bfloat16 operations and bytes a second.
PEAK, BANDWIDTH = 989e12, 3.35e12


def mask() -> np.ndarray:
    """A disc for a cortex: its box is nearly the whole map, so nothing is saved by it."""
    row, column = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    return np.hypot(row, column) < 0.5


def encoder(*, aligned: bool) -> FmriEncoder:
    return FmriEncoder(
        SIDE,
        SIDE,
        WINDOW,
        TOKENS,
        clip_dim=WIDTH,
        global_part=aligned,
        local_part=aligned,
        box=bounding_box(mask()),
    )


def shapes(module: Any, *inputs: Any, **options: Any) -> Any:
    init = functools.partial(module.init, **options)
    return jax.eval_shape(init, jax.random.key(0), *inputs)


def operations(loss: Callable, *arguments: Any) -> float:
    """Of value and gradient with respect to all arguments."""
    step = jax.jit(jax.grad(loss, argnums=tuple(range(len(arguments)))))
    analysis: Any = step.lower(*arguments).cost_analysis()
    return float(analysis["flops"])


def count() -> dict[str, float]:
    """Operations of one sample by part."""
    window = jax.ShapeDtypeStruct((1, WINDOW, SIDE, SIDE), jnp.float32)
    latent = jax.ShapeDtypeStruct((1, FRAMES, LATENT, LATENT, 4), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, TOKENS, WIDTH), jnp.float32)
    video = jax.ShapeDtypeStruct((FRAMES, SIDE, SIDE, 3), jnp.float32)
    step = jax.ShapeDtypeStruct((1,), jnp.int32)
    brain, unet = encoder(aligned=False), UNet3D.from_config(UNET)
    vae: Any = AutoencoderKL.from_config(VAE)

    def unet_loss(variables: Any, x: Any, c: Any) -> Any:
        t = jnp.zeros(step.shape, jnp.int32)
        return unet.apply(variables, x, t, c).sum()

    def encode(variables: Any, x: Any) -> Any:
        return vae.apply(variables, x, method="encode").mean

    frozen: Any = jax.jit(encode).lower(shapes(vae, video), video).cost_analysis()
    pixels, patches, kernel = SIDE**2, (SIDE // 16) ** 2, 13
    return {
        "encoder": operations(
            lambda variables, x: brain.apply(variables, x).condition.sum(),
            shapes(brain, window),
            window,
        ),
        "unet3d": operations(unet_loss, shapes(unet, latent, step, tokens), latent, tokens),
        "vae_encoder": float(frozen["flops"]),
        # Forward and two gradients; a multiplication and an addition each.
        "glfa_global": WINDOW * 3 * 2.0 * patches * pixels,
        "glfa_local": WINDOW * 3 * 2.0 * kernel**2 * pixels,
    }


def bound(operations: dict[str, float]) -> float:
    """Largest share of a step's time on an H100."""
    weights, maps = 4.0 * 13**2 * SIDE**2, 4.0 * BATCH * WINDOW * SIDE**2
    layer = 2 * (3 * weights + 6 * maps) / BANDWIDTH  # twice: the global part passes the maps too
    rest = BATCH * sum(n for name, n in operations.items() if "glfa" not in name) / PEAK
    return layer / (layer + rest)


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of a gradient step of the encoder with and without the layer."""
    rng = np.random.default_rng(0)
    fmri = jnp.asarray(rng.standard_normal((1, WINDOW, SIDE, SIDE), np.float32) * mask())
    calls = {}
    layer = GlfaLayer(SIDE, SIDE, box=bounding_box(mask()))
    variables: Any = jax.jit(encoder(aligned=True).init)(jax.random.key(0), fmri)
    own = {"params": variables["params"]["func_align_layer"]}

    def call(loss: Callable, *arguments: Any) -> Callable[[], Any]:
        compiled = jax.jit(jax.grad(loss)).lower(*arguments).compile()
        return lambda: jax.block_until_ready(compiled(*arguments))

    calls["layer"] = call(lambda v, x: jnp.square(layer.apply(v, x)).sum(), own, fmri)
    for name, aligned in (("with", True), ("without", False)):
        module = encoder(aligned=aligned)

        def loss(variables: Any, x: Any, module: Any = module) -> Any:
            return jnp.square(module.apply(variables, x).condition).sum()

        given = dict(variables["params"])
        if not aligned:
            given.pop("func_align_layer")
        calls[name] = call(loss, {"params": given}, fmri)
    return median_seconds(calls, rounds=rounds)


def main() -> int:
    args = parser(__doc__, rounds=3).parse_args()
    counted = count()
    whole = sum(counted.values())
    for name, n in counted.items():
        print(f"{name:12s} {n / 1e12:8.3f} Tflop a sample, {n / whole:.3%}")
    share = (counted["glfa_global"] + counted["glfa_local"]) / whole
    print(f"GLFA: {share:.3%} of the operations, at most {bound(counted):.2%} of an H100's time")
    seconds = measure(args.rounds)
    print(
        f"measured on {jax.devices()[0].device_kind}: layer {seconds['layer']:.4f} s, encoder "
        f"{seconds['with']:.2f} s with it and {seconds['without']:.2f} s without: "
        f"{seconds['layer'] / seconds['with']:.2%} of the encoder's step"
    )
    result = {
        "operations_a_sample": counted,
        "share_of_operations": share,
        "largest_share_of_time_on_h100": bound(counted),
        "seconds": seconds,
        "share_of_encoder_step": seconds["layer"] / seconds["with"],
    }
    write_result(args.json, result, packages=("jax", "jaxlib"))
    return int(max(bound(counted), seconds["layer"] / seconds["with"]) > 0.05)


if __name__ == "__main__":
    sys.exit(main())
