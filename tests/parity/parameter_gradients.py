"""The gradients of all parameters, beside PyTorch's."""

from typing import Any

import numpy as np
import torch

from glfa_jax.convert.mapping import Table, export_params


def assert_alike(ours: dict, model: torch.nn.Module, table: Table) -> None:
    """ours: gradients in the place of parameters. model: after its backward pass."""
    exported = export_params(ours, table)
    wanted: dict[str, Any] = {name: x.grad.numpy() for name, x in model.named_parameters()}
    assert exported.keys() == wanted.keys()
    scale = max(np.abs(gradient).max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        # Some cancel to rounding, as a bias before a norm, or before a softmax: scale by the
        # largest.
        size = max(np.abs(gradient).max(), 1e-3 * scale)
        assert np.abs(exported[name] - gradient).max() < 1e-3 * size, name
