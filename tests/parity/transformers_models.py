"""What the parity tests of transformers' models share."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

from glfa_jax.convert.directory import read_config, read_tensors, write_tensors
from glfa_jax.convert.mapping import Table, export_params, import_params

FORWARD, GRADIENT = 1e-4, 1e-3


def tensors_of(model: torch.nn.Module, folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Configuration and tensors as transformers stores them."""
    model.save_pretrained(folder)
    return read_config(folder), read_tensors(folder)


def assert_close(ours: jax.Array, theirs: torch.Tensor, relative: float) -> None:
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() <= relative * np.abs(theirs).max()


def assert_gradients_close(ours: dict, model: torch.nn.Module, table: Table, folder: Path) -> None:
    """Compares all gradients under their stored names; the bound is relative to the largest one."""
    with torch.no_grad():
        for parameter in model.parameters():
            gradient = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    _, theirs = tensors_of(model, folder)
    mine = export_params(ours, table)
    assert mine.keys() == theirs.keys()
    largest = max(np.abs(value).max() for value in theirs.values())
    assert largest > 0
    for name, value in theirs.items():
        assert np.abs(mine[name] - value).max() <= GRADIENT * largest, name


def assert_round_trip(tensors: dict[str, np.ndarray], target: dict, table: Table) -> None:
    """Export inverts import, bit for bit."""
    back = export_params(import_params(tensors, target, table), table)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes(), name


def reload(
    model_class: type, params: dict, table: Table, config: dict, folder: Path
) -> torch.nn.Module:
    """What torch's from_pretrained makes of a folder that we write."""
    write_tensors(folder, export_params(params, table), config=config, filename="model.safetensors")
    model, report = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def apply(model, params: dict, *inputs, **options):
    """The compiled forward pass: op by op, compiling takes most of a test's time."""
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda p, *x: model.apply({"params": p}, *x, **options))(params, *inputs)


def count(shapes: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def shapes_of(module, *inputs, **options) -> dict:
    """Parameter shapes through eval_shape: nothing is computed."""
    init = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))
    return init["params"]


def zeros(*shape: int, dtype=jnp.float32) -> jax.Array:
    return jnp.zeros(shape, dtype)
