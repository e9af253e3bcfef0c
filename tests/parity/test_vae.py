"""AutoencoderKL against diffusers' class: posterior, reconstruction, gradients, names."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import models
from glfa_jax.convert.mapping import export_params, import_params
from glfa_jax.convert.vae import TABLE, current_names
from glfa_jax.models.vae import AutoencoderKL
from tests.parity import parameter_gradients

CONFIG = models.small_vae(16, 32, groups=8)


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def _last(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def pair() -> tuple[diffusers.AutoencoderKL, AutoencoderKL, dict]:
    theirs = models.random_torch_model("vae", CONFIG, seed=0)
    ours = AutoencoderKL.from_config(dict(theirs.config))
    target = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    return theirs, ours, import_params(source, target, TABLE)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, 8, 12, 3)).astype(np.float32)


def _first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def test_posterior(pair: tuple, image: np.ndarray) -> None:
    theirs, ours, params = pair
    with torch.no_grad():
        wanted = theirs.encode(_first(image)).latent_dist
    encode = jax.jit(lambda params, x: ours.apply({"params": params}, x, method="encode"))
    with jax.default_matmul_precision("highest"):
        # Frames on an axis of their own change nothing.
        got = encode(params, image[:, None])
    got = jax.tree.map(lambda x: x[:, 0], got)
    assert got.mean.shape == (2, 4, 6, 4)
    assert _error(got.mode(), _last(wanted.mean)) < 1e-4
    assert _error(got.log_variance, _last(wanted.logvar)) < 1e-4
    assert _error(got.divergence(), wanted.kl().numpy()) < 1e-4
    draws = jax.jit(jax.vmap(got.sample))(jax.random.split(jax.random.key(0), 400))
    assert _error(np.std(draws, 0), _last(wanted.std)) < 0.15


def test_reconstruction_and_gradients(pair: tuple, image: np.ndarray) -> None:
    theirs, ours, params = pair
    weight = np.random.default_rng(2).standard_normal(image.shape, np.float32)
    given = _first(image).requires_grad_()
    # The log variance takes part, so that all of quant_conv gets a gradient.
    posterior = theirs.encode(given).latent_dist
    output = theirs.decode(posterior.mean).sample
    ((output * _first(weight)).sum() + posterior.logvar.sum()).backward()

    @jax.jit
    def run(params: dict, image: jax.Array) -> tuple:
        def loss(params: dict, image: jax.Array) -> tuple[jax.Array, jax.Array]:
            posterior = ours.apply({"params": params}, image, method="encode")
            out = ours.apply({"params": params}, posterior.mode(), method="decode")
            return (out * weight).sum() + posterior.log_variance.sum(), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    with jax.default_matmul_precision("highest"):
        (of_params, of_image), got = run(params, image)
    assert _error(got, _last(output)) < 1e-4
    assert _error(of_image, _last(given.grad)) < 1e-3
    parameter_gradients.assert_alike(of_params, theirs, TABLE)


def test_scaling_is_undone(pair: tuple) -> None:
    _, ours, _ = pair
    latent = jnp.ones((1, 2, 2, 4))
    np.testing.assert_allclose(ours.to_diffusion(latent), 0.18215, rtol=1e-6)
    np.testing.assert_allclose(ours.from_diffusion(ours.to_diffusion(latent)), 1, rtol=1e-6)


def test_export_inverts_import(pair: tuple) -> None:
    theirs, _, params = pair
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    exported = export_params(params, TABLE)
    assert exported.keys() == source.keys()
    for name, tensor in source.items():
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name)


def test_outdated_names_are_understood(pair: tuple) -> None:
    theirs, _, _ = pair
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    outdated = {}
    for name, tensor in source.items():
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.")
        outdated[name] = tensor
    assert outdated.keys() != source.keys()
    assert current_names(outdated).keys() == source.keys()
    assert current_names(source).keys() == source.keys()
