"""UNet3D against diffusers' UNet3DConditionModel: outputs, all gradients, names."""

import jax
import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel

from benchmarks import models
from glfa_jax.convert import pretrained
from glfa_jax.convert.mapping import export_params, import_params
from glfa_jax.convert.unet3d import TABLE
from glfa_jax.models.unet3d import UNet3D
from tests.parity import parameter_gradients

SMALL = models.small_unet(16, 24, 32, groups=8, head=8, condition=24) | {
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"],
    "mid_block_scale_factor": 1.5,
    "norm_eps": 1e-4,
}
# Attention at the other end, two layers, heads that do not fill the width, the other padding.
OTHER = SMALL | {
    "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
    "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
    "block_out_channels": [16, 24],
    "layers_per_block": 2,
    "attention_head_dim": 10,
    "downsample_padding": 0,
}


def _pair(config: dict, *, seed: int) -> tuple[UNet3DConditionModel, UNet3D, dict]:
    theirs = models.random_torch_model("unet3d", config, seed=seed)
    ours = UNet3D.from_config(dict(theirs.config))
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    target = pretrained.parameter_shapes("unet3d", ours)
    return theirs, ours, import_params(source, target, TABLE)


def _inputs(shape: tuple[int, ...], *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sample = rng.standard_normal(shape, np.float32)
    conditioning = rng.standard_normal((shape[0], 5, 24), np.float32)
    return sample, rng.integers(0, 1000, shape[0]).astype(np.int32), conditioning


def _first(x: np.ndarray) -> torch.Tensor:
    """Channels first."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 4, 1, 2, 3)))


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def small() -> tuple[UNet3DConditionModel, UNet3D, dict]:
    return _pair(SMALL, seed=0)


@pytest.mark.parametrize(
    ("config", "shape"),
    [(SMALL, (2, 3, 8, 8, 4)), (SMALL, (1, 1, 6, 9, 4)), (OTHER, (1, 2, 7, 5, 4))],
    ids=["even", "one frame, odd size", "other"],
)
def test_output(config: dict, shape: tuple[int, ...], small: tuple) -> None:
    theirs, ours, params = small if config is SMALL else _pair(config, seed=1)
    sample, timestep, conditioning = _inputs(shape, seed=2)
    with torch.no_grad():
        wanted = theirs(
            _first(sample), torch.from_numpy(timestep).long(), torch.from_numpy(conditioning)
        ).sample.numpy()
    apply = jax.jit(ours.apply)
    with jax.default_matmul_precision("highest"):
        got = apply({"params": params}, sample, timestep, conditioning)
    assert got.shape == sample.shape
    assert _error(got, wanted.transpose(0, 2, 3, 4, 1)) < 1e-4


def test_output_and_gradients(small: tuple) -> None:
    theirs, ours, params = small
    # 7 and 5 halve to 4 and 3, then to 2 and 2: both halvings round up.
    sample, timestep, conditioning = _inputs((2, 2, 7, 5, 4), seed=4)
    weight = np.random.default_rng(5).standard_normal(sample.shape, np.float32)

    inputs = [_first(sample).requires_grad_(), torch.from_numpy(conditioning).requires_grad_()]
    output = theirs(inputs[0], torch.from_numpy(timestep).long(), inputs[1]).sample
    (output * _first(weight)).sum().backward()

    @jax.jit
    def run(*trees: dict | jax.Array) -> tuple:
        def loss(params: dict, sample: jax.Array, conditioning: jax.Array) -> tuple:
            out = ours.apply({"params": params}, sample, timestep, conditioning)
            return (out * weight).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*trees)

    with jax.default_matmul_precision("highest"):
        (of_params, of_sample, of_conditioning), got = run(params, sample, conditioning)
    assert _error(got, output.detach().numpy().transpose(0, 2, 3, 4, 1)) < 1e-4
    assert _error(of_sample, inputs[0].grad.numpy().transpose(0, 2, 3, 4, 1)) < 1e-3
    assert _error(of_conditioning, inputs[1].grad.numpy()) < 1e-3
    parameter_gradients.assert_alike(of_params, theirs, TABLE)


def test_export_inverts_import(small: tuple) -> None:
    theirs, _, params = small
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    exported = export_params(params, TABLE)
    assert exported.keys() == source.keys()
    for name, tensor in source.items():
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name)
