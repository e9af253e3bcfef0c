"""AutoencoderKLWan against diffusers' class: blocks by piece, the whole by clip, names, numbers.

Where `verify` is tested on every kind (test_convert.py) it compares 9 frames, and the gradients of
all parameters, those of the encoder through the latents.
"""

from collections.abc import Iterator

import diffusers
import flax.linen as nn
import jax
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders import autoencoder_kl_wan as wan

from benchmarks import models
from glfa_jax.convert import pretrained
from glfa_jax.convert.mapping import export_params, export_views, import_params
from glfa_jax.convert.wan_vae import TABLE
from glfa_jax.models import wan_vae_blocks as blocks
from glfa_jax.models.wan_vae import AutoencoderKLWan

AS_PUBLISHED = models.small_wan_vae(4, channels=4, num_res_blocks=1)
# Time is halved first, widths do not rise evenly, the decoder is wider than the encoder.
OTHER = models.small_wan_vae(4, channels=3, num_res_blocks=1, decoder_base_dim=6) | {
    "dim_mult": [1, 3, 2],
    "temperal_downsample": [True, True],
    "in_channels": 2,
    "out_channels": 5,
}


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _first(x: np.ndarray) -> torch.Tensor:
    """Channels first."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def _last(x: torch.Tensor) -> np.ndarray:
    return np.moveaxis(x.detach().numpy(), 1, -1)


def _source(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _pieces(x: np.ndarray, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    yield from np.split(x, np.cumsum(sizes)[:-1], axis=1)


@pytest.mark.parametrize(
    ("theirs", "ours", "sizes"),
    [
        (wan.WanResidualBlock(8, 8), blocks.ResidualBlock(8), (1, 1, 1, 1)),
        (wan.WanResidualBlock(8, 6), blocks.ResidualBlock(6), (1, 2, 4)),
        (wan.WanResidualBlock(8, 6), blocks.ResidualBlock(6), (3,)),
        (wan.WanAttentionBlock(8), blocks.AttentionBlock(), (2,)),
        (wan.WanMidBlock(8), blocks.MidBlock(), (1, 1, 1)),
        (wan.WanResample(8, "downsample2d"), blocks.Downsample(False), (1, 4)),
        (wan.WanResample(8, "downsample3d"), blocks.Downsample(True), (1, 4, 2, 2)),
        (wan.WanResample(8, "upsample2d"), blocks.Upsample(False), (1, 2)),
        (wan.WanResample(8, "upsample3d"), blocks.Upsample(True), (1, 2, 1, 1, 3)),
    ],
    ids=lambda x: "-".join(map(str, x)) if isinstance(x, tuple) else getattr(x, "mode", None),
)
def test_block(theirs: torch.nn.Module, ours: nn.Module, sizes: tuple[int, ...]) -> None:
    models.randomise(theirs, seed=0)
    x = np.random.default_rng(1).standard_normal((2, sum(sizes), 4, 6, 8), np.float32)
    made = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert made.keys() == {"params"}
    params = import_params(_source(theirs), made["params"], TABLE)

    @jax.jit
    def run(params: dict, x: np.ndarray) -> list[jax.Array]:
        past, found = {}, []
        for piece in np.split(np.arange(x.shape[1]), np.cumsum(sizes)[:-1]):
            y, past = ours.apply({"params": params, **past}, x[:, piece], mutable=["past"])
            found.append(y)
        return found

    cache: list = [None] * 8
    wanted = []
    for piece in _pieces(x, sizes):
        known = {"feat_cache": cache, "feat_idx": [0]}
        known = {} if isinstance(theirs, wan.WanAttentionBlock) else known
        with torch.no_grad():
            wanted.append(_last(theirs(_first(piece), **known)))
    for got, piece in zip(run(params, x), wanted, strict=True):
        assert _error(got, piece) < 1e-5


@pytest.fixture(scope="module")
def published() -> tuple[diffusers.AutoencoderKLWan, AutoencoderKLWan, dict]:
    return _pair(AS_PUBLISHED)


def _pair(config: dict) -> tuple[diffusers.AutoencoderKLWan, AutoencoderKLWan, dict]:
    theirs = models.random_torch_model("wan_vae", config, seed=0)
    ours = AutoencoderKLWan.from_config(dict(theirs.config))
    shapes = pretrained.parameter_shapes("wan_vae", ours)
    return theirs, ours, import_params(_source(theirs), shapes, TABLE)


@pytest.mark.parametrize(
    ("config", "clips", "frames", "latent"),
    [
        (AS_PUBLISHED, 1, 1, (1, 2)),
        (AS_PUBLISHED, 2, 5, (3, 5)),
        (OTHER, 3, 13, (3, 1)),
    ],
    ids=["one frame", "5 frames, 24x40", "other, 13 frames"],
)
def test_posterior_and_video(config, clips, frames, latent, published) -> None:
    theirs, ours, params = published if config is AS_PUBLISHED else _pair(config)
    rng = np.random.default_rng(1)
    size = [n * ours.pixels_per_latent for n in latent]
    video = rng.uniform(-1, 1, (clips, frames, *size, ours.in_channels)).astype(np.float32)
    latents = rng.standard_normal((clips, (frames + 3) // 4, *latent, ours.z_dim), np.float32)
    with torch.no_grad():
        wanted = theirs.encode(_first(video)).latent_dist
        decoded = _last(theirs.decode(_first(latents)).sample)

    @jax.jit
    def run(params: dict, video: jax.Array, latents: jax.Array) -> tuple:
        posterior = ours.apply({"params": params}, video, method="encode")
        return posterior, ours.apply({"params": params}, latents, method="decode")

    posterior, got = run(params, video, latents)
    assert _error(posterior.mean, _last(wanted.mean)) < 1e-4
    assert _error(posterior.log_variance, _last(wanted.logvar)) < 1e-4
    assert _error(got, decoded) < 1e-4
    assert decoded.shape == (clips, frames, *size, ours.out_channels)
    assert (np.abs(decoded) < 1).mean() > 0.5  # what is clipped would hide differences


def test_latents_are_scaled_as_by_the_pipeline(published: tuple) -> None:
    theirs, ours, _ = published
    latents = np.random.default_rng(2).standard_normal((2, 1, 2, 3, 4), np.float32)
    mean, std = (np.array(theirs.config[f"latents_{name}"]) for name in ("mean", "std"))
    np.testing.assert_allclose(ours.to_diffusion(latents), (latents - mean) / std, atol=1e-6)
    back = ours.from_diffusion(ours.to_diffusion(latents))
    np.testing.assert_allclose(back, latents, atol=1e-6)


def test_export_inverts_import(published: tuple) -> None:
    theirs, _, params = published
    source, exported = _source(theirs), export_params(params, TABLE)
    assert exported.keys() == source.keys()
    for name, tensor in source.items():
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name)


def test_full_size_is_that_of_diffusers() -> None:
    with torch.device("meta"):
        theirs = models.torch_model("wan_vae", models.WAN_VAE)
    ours = AutoencoderKLWan.from_config(dict(theirs.config))
    assert ours == AutoencoderKLWan() == AutoencoderKLWan.from_config(models.WAN_VAE)
    shapes = pretrained.parameter_shapes("wan_vae", ours)
    views = export_views(jax.tree.map(lambda x: np.broadcast_to(0.0, x.shape), shapes), TABLE)
    wanted = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert {name: view.shape for name, view in views.items()} == wanted
