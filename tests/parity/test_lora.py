"""An imported LoRA, merged, computes what PyTorch computes with the update beside the layer."""

import math

import jax
import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_musubi_wan_lora_to_diffusers,
    _convert_non_diffusers_wan_lora_to_diffusers,
)

from benchmarks.models import TINY, random_torch_model, shapes_of
from glfa_jax.convert import pretrained, wan
from glfa_jax.convert.adapted import ADAPTED
from glfa_jax.convert.lora import Lora, export_lora, import_lora
from glfa_jax.convert.mapping import export_params, import_params
from glfa_jax.convert.unet3d import TABLE
from glfa_jax.generators.unet3d import UNet3DGenerator
from glfa_jax.models.lora import init_lora, merge
from glfa_jax.models.unet3d import UNet3D

PATTERNS = UNet3DGenerator.trainable["lora"].patterns
SCALE = 2.0


def _layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}


class _Update(torch.nn.Module):
    """A low-rank update as PEFT places it beside a layer: the layer's own kind, then one tap."""

    def __init__(self, layer: torch.nn.Module, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        if isinstance(layer, torch.nn.Linear):
            self.down = torch.nn.Linear(layer.in_features, rank, bias=False)
            self.up = torch.nn.Linear(rank, layer.out_features, bias=False)
        else:
            self.down = type(layer)(
                layer.in_channels,
                rank,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                bias=False,
            )
            self.up = type(layer)(rank, layer.out_channels, 1, bias=False)
        for part in (self.down, self.up):
            noise = torch.randn(part.weight.shape, generator=generator)
            part.weight.data = 0.5 * noise / math.sqrt(part.weight[0].numel())

    def forward(self, layer: torch.nn.Module, given: tuple, output: torch.Tensor) -> torch.Tensor:
        """As a forward hook of the layer."""
        return output + SCALE * self.up(self.down(given[0]))

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        product = torch.einsum("or,r...->o...", self.up.weight.flatten(1), self.down.weight)
        return weight + SCALE * product


@pytest.fixture(scope="module")
def theirs() -> UNet3DConditionModel:
    return random_torch_model("unet3d", TINY["unet3d"], seed=0)


@pytest.fixture(scope="module")
def ours(theirs: UNet3DConditionModel) -> tuple:
    module = UNet3D.from_config(dict(theirs.config))
    target = pretrained.parameter_shapes("unet3d", module)
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    return jax.jit(module.apply), import_params(source, target, TABLE)


@pytest.fixture(scope="module")
def updates(theirs: UNet3DConditionModel) -> dict[str, _Update]:
    """Every layer of the model, ranks 1 to 3."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: _Update(layer, 1 + i % 3, generator)
        for i, (name, layer) in enumerate(_layers(theirs).items())
    }


@pytest.fixture(scope="module")
def stored(updates: dict[str, _Update]) -> dict[str, np.ndarray]:
    """With alphas, as the rank differs and the scale must not."""
    source = {}
    for name, update in updates.items():
        source[f"unet.{name}.lora_A.weight"] = update.down.weight.detach().numpy()
        source[f"unet.{name}.lora_B.weight"] = update.up.weight.detach().numpy()
        rank = update.down.weight.shape[0]
        source[f"unet.{name}.alpha"] = np.float32(SCALE * rank)
    return source


def test_every_merged_weight(theirs, ours, updates, stored):
    _, params = ours
    lora = import_lora(stored, params=params)
    assert lora.scale == SCALE
    merged = export_params(merge(params, lora.tree, scale=lora.scale), TABLE)
    weights = dict(theirs.named_parameters())
    assert merged.keys() == weights.keys()
    kinds = set()
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        wanted = updates[layer].merged(weight) if layer in updates else weight
        kinds.add((layer in updates, weight.ndim))
        np.testing.assert_allclose(merged[name], wanted.detach(), rtol=0, atol=1e-6, err_msg=name)
    assert {(True, 2), (True, 4), (True, 5), (False, 1)} == kinds


def test_forward_with_the_update_beside_every_layer(theirs, ours, updates, stored):
    rng = np.random.default_rng(2)
    sample = rng.standard_normal((2, 3, 6, 4, 4), np.float32)
    conditioning = rng.standard_normal((2, 5, 12), np.float32)
    timestep = np.array([3, 800], np.int32)

    def run() -> np.ndarray:
        given = torch.from_numpy(np.ascontiguousarray(sample.transpose(0, 4, 1, 2, 3)))
        with torch.no_grad():
            output = theirs(given, torch.from_numpy(timestep), torch.from_numpy(conditioning))
        return output.sample.numpy().transpose(0, 2, 3, 4, 1)

    plain = run()
    hooks = [layer.register_forward_hook(updates[name]) for name, layer in _layers(theirs).items()]
    try:
        wanted = run()
    finally:
        for hook in hooks:
            hook.remove()
    size = np.abs(wanted).max()
    assert np.abs(wanted - plain).max() > 0.1 * size

    apply, params = ours
    lora = import_lora(stored, params=params)
    merged = merge(params, lora.tree, scale=lora.scale)
    with jax.default_matmul_precision("highest"):
        got = apply({"params": merged}, sample, timestep, conditioning)
    assert np.abs(np.asarray(got) - wanted).max() < 1e-4 * size


def test_our_own_lora_fits_their_layers(theirs, ours):
    """What stage 2 trains is stored with the shapes that PyTorch's update of each layer has."""
    _, params = ours
    tree = init_lora(params, patterns=PATTERNS, rank=2, key=jax.random.key(0))
    exported = export_lora(Lora(tree, 1.0), prefix="")
    layers, generator = _layers(theirs), torch.Generator()
    adapted = {name.rsplit(".lora_", 1)[0] for name in exported}
    assert {type(layers[name]) for name in adapted} == {torch.nn.Linear, torch.nn.Conv3d}
    for name in adapted:
        update = _Update(layers[name], 2, generator)
        assert exported[f"{name}.lora_A.weight"].shape == tuple(update.down.weight.shape)
        assert exported[f"{name}.lora_B.weight"].shape == tuple(update.up.weight.shape)


def test_the_names_of_wan_mean_what_diffusers_takes_them_for():
    """Those of the authors, and musubi-tuner's with its alphas, on every linear layer."""
    shapes = shapes_of("wan", TINY["wan"])
    tree = init_lora(shapes, patterns=(r"(attn|ffn).*/kernel$",), rank=2, key=jax.random.key(0))
    tree = jax.tree.map(lambda leaf: leaf + np.cos(np.arange(leaf.shape[-1])), tree)
    ours = Lora(tree, 0.5, "wan")
    tensors = export_lora(ours, prefix="")
    assert len(tensors) == 2 * TINY["wan"]["num_layers"] * 10

    def named(prefix: str, parts: dict[str, str], dots: str) -> dict[str, torch.Tensor]:
        found = {}
        for name, tensor in tensors.items():
            layer, _, part = name.partition(".lora_")
            layer = ADAPTED["wan"].original_name(layer).replace(".", dots)
            found[f"{prefix}{layer}.{parts[part]}"] = torch.from_numpy(tensor)
        return found

    comfy = named(
        "diffusion_model.", {"A.weight": "lora_A.weight", "B.weight": "lora_B.weight"}, "."
    )
    musubi = named(
        "lora_unet_", {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}, "_"
    )
    alphas = {name.split(".")[0] + ".alpha": torch.tensor(1.0) for name in musubi}
    for source, theirs, scale in (
        (comfy, _convert_non_diffusers_wan_lora_to_diffusers(dict(comfy)), 1.0),
        (musubi | alphas, _convert_musubi_wan_lora_to_diffusers(dict(musubi | alphas)), 0.5),
    ):
        found, wanted = (
            import_lora({k: x.numpy() for k, x in given.items()}, params=shapes, kind="wan")
            for given in (source, theirs)
        )
        assert (found.scale, found.kind) == (scale, "wan")
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
        got, right, own = (
            export_params(merge(zeros, lora.tree, scale=lora.scale), wan.TABLE)
            for lora in (found, wanted, Lora(ours.tree, scale, "wan"))
        )
        for name in got:
            np.testing.assert_allclose(got[name], right[name], atol=1e-6, err_msg=name)
            np.testing.assert_allclose(got[name], own[name], atol=1e-6, err_msg=name)
