"""Wan's autoencoder without torch: memory, dtypes, rejections."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.models import TINY, WAN_VAE
from glfa_jax.convert import pretrained
from glfa_jax.models.wan_vae import AutoencoderKLWan

SMALL = AutoencoderKLWan(
    base_dim=2,
    z_dim=2,
    dim_mult=(1, 1),
    num_res_blocks=1,
    temperal_downsample=(True,),
    latents_mean=(0.0, 0.5),
    latents_std=(1.0, 2.0),
)


def _shaped(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_memory_does_not_grow_with_the_clip(method: str) -> None:
    params = pretrained.parameter_shapes("wan_vae", SMALL)
    video = {frames: (2, frames, 32, 24, 3) for frames in (9, 33)}
    latent = {frames: (2, (frames + 1) // 2, 16, 12, 2) for frames in video}
    needs = {}
    for frames in video:
        given = video if method == "encode" else latent
        run = jax.jit(lambda params, x: SMALL.apply({"params": params}, x, method=method))
        memory = run.lower(params, _shaped(*given[frames])).compile().memory_analysis()
        assert memory is not None
        needs[frames] = memory.temp_size_in_bytes
    more = 4 * 2 * (33 - 9) * 32 * 24 * 3  # bytes of video
    assert needs[9] > 0
    assert needs[33] - needs[9] < 0.1 * more


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_results_are_float32(dtype) -> None:
    module = SMALL.clone(dtype=dtype)
    variables = {"params": pretrained.parameter_shapes("wan_vae", module)}

    def run(variables, video):
        posterior = module.apply(variables, video, method="encode")
        return posterior, module.apply(variables, posterior.mean, method="decode")

    posterior, video = jax.eval_shape(run, variables, _shaped(2, 5, 6, 4, 3, dtype=dtype))
    assert posterior.mean == posterior.log_variance == _shaped(2, 3, 3, 2, 2)
    assert video == _shaped(2, 5, 6, 4, 3)


def test_reductions_follow_the_configuration() -> None:
    published = AutoencoderKLWan.from_config(WAN_VAE)
    assert (published.frames_per_latent, published.pixels_per_latent) == (4, 8)
    assert (SMALL.frames_per_latent, SMALL.pixels_per_latent) == (2, 2)


@pytest.mark.parametrize(
    ("shape", "method", "sentence"),
    [
        ((1, 4, 8, 8, 3), "encode", "must be .* with 2 k \\+ 1 frames"),
        ((1, 0, 8, 8, 3), "encode", "must be .* with 2 k \\+ 1 frames"),
        ((1, 5, 8, 7, 3), "encode", "height and width multiples of 2"),
        ((1, 5, 8, 8, 4), "encode", r"must be \(clips, frames, height, width, 3\)"),
        ((5, 8, 8, 3), "encode", r"must be \(clips, frames, height, width, 3\)"),
        ((1, 2, 4, 4, 3), "decode", r"latent: is .* must be \(clips, frames, height, width, 2\)"),
        ((2, 4, 4, 2), "decode", "latent: is .* must be"),
        ((1, 0, 4, 4, 2), "decode", "latent: is .* must be"),
    ],
)
def test_other_shapes_are_rejected(shape: tuple, method: str, sentence: str) -> None:
    variables = {"params": pretrained.parameter_shapes("wan_vae", SMALL)}
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(lambda v, x: SMALL.apply(v, x, method=method), variables, _shaped(*shape))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"is_residual": True, "patch_size": 2, "z_dim": 48}, "supported is that of Wan 2.1"),
        ({"patch_size": 2}, "patch_size is 2, supported is None"),
        ({"attn_scales": [0.5]}, r"attn_scales is \(0.5,\), supported is \(\)"),
        ({"dim_mult": [1, 2]}, "temperal_downsample: 3 given for 1 halvings"),
        ({"temperal_downsample": [0, 1, 1]}, "1 to 8 entries, true or false"),
        ({"z_dim": 4}, r"latents_mean: 2 given for 4 latent channels"),
        ({"latents_mean": [0.0]}, "latents_mean: 1 given for 2 latent channels"),
        ({"latents_std": [1.0, 0.0]}, "latents_std: has 0.0, must be above 0"),
        ({"latents_std": [1.0, -1.0]}, "a list of 1 to 1,024 entries, numbers"),
        ({"latents_mean": "0"}, "a list of 1 to 1,024 entries, numbers"),
        ({"num_res_blocks": 10**6}, "num_res_blocks is 1000000, must be one integer from 1 to 8"),
        ({"base_dim": None}, "base_dim is None, must be one integer"),
        ({"width": 3}, "width is no option of AutoencoderKLWan"),
    ],
)
def test_unsupported_configurations_are_named(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AutoencoderKLWan.from_config(TINY["wan_vae"] | change)


def test_what_is_missing_is_named() -> None:
    config = {key: value for key, value in TINY["wan_vae"].items() if key != "z_dim"}
    with pytest.raises(ValueError, match="z_dim is missing"):
        AutoencoderKLWan.from_config(config)
