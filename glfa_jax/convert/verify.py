"""Runs a source in PyTorch and the imported model in JAX on the same random inputs.

The only module of the package that needs PyTorch, and only once it is called. For the classes of
diffusers and transformers those load the source themselves; our own models have a definition in
PyTorch of their own, `verify_fmri`.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glfa_jax.convert.directory import read_tensors
from glfa_jax.convert.lora import Lora, export_lora, merging
from glfa_jax.convert.mapping import export_views, import_params
from glfa_jax.convert.pretrained import KINDS, Pretrained, described, load
from glfa_jax.convert.sources import Source, open_source, parts_of
from glfa_jax.convert.transfer import loras_of, require_strength
from glfa_jax.convert.verify_runs import RUNS, Outputs, normal
from glfa_jax.errors import InputError

TOLERANCE = 1e-4
_INSTALL = "pip install torch diffusers"


class VerifyError(InputError):
    """The comparison cannot be made."""


@dataclass(frozen=True)
class Difference:
    """`absolute`: the largest one; `relative`: to the largest magnitude in PyTorch's result."""

    name: str
    absolute: float
    relative: float

    @property
    def passed(self) -> bool:
        return self.relative <= TOLERANCE  # false for NaN too


@dataclass(frozen=True)
class Comparison:
    """One model: its outputs and, where asked for, the gradients of all parameters."""

    kind: str
    place: Path
    tensors: int
    parameters: int
    outputs: list[Difference]
    gradients: list[Difference]
    lora: Lora | None = None

    @property
    def passed(self) -> bool:
        return all(difference.passed for difference in (*self.outputs, *self.gradients))

    @property
    def forward_error(self) -> float:
        return max(difference.relative for difference in self.outputs)

    @property
    def gradient_error(self) -> float:
        return max(difference.relative for difference in self.gradients)

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.kind}, {self.tensors} tensors, {self.parameters:,} numbers"]
        if self.lora is not None:
            count, scale = len(self.lora.modules), self.lora.scale
            lines.append(f"  with the LoRA of {count} layers, its update {scale:g} times")
        worst = sorted(self.gradients, key=lambda d: -d.relative)[:5]
        for what, found in (("output", self.outputs), ("gradient of", worst)):
            lines += [
                f"  {what} {d.name}: largest difference {d.absolute:.1e}, relative {d.relative:.1e}"
                for d in found
            ]
        if self.gradients:
            lines.append(f"  gradients compared: {len(self.gradients)}, the worst are shown")
        verdict = "agree" if self.passed else "DISAGREE"
        lines.append(f"  PyTorch and JAX {verdict} (relative bound {TOLERANCE:.0e})")
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    comparisons: list[Comparison]

    @property
    def passed(self) -> bool:
        return all(comparison.passed for comparison in self.comparisons)

    def __str__(self) -> str:
        return "\n".join(map(str, self.comparisons))


def verify(
    kind: str,
    place: str | Path,
    *,
    target: str | Path | None = None,
    gradients: bool = False,
    variant: str | None = None,
    given: Mapping[str, Any] | None = None,
    lora: str | Path | None = None,
    lora_strength: float = 1.0,
    seed: int = 0,
) -> Report:
    """Compares every model of the source. `target`: what was imported; else imported here.

    `lora`, `lora_strength`: merged as `import_model` does, where it was not when `target` was made;
    PyTorch runs it beside the layers that it adapts. Inputs are standard normal, tokens uniform.
    Everything is computed in float32.
    """
    _require_torch()
    require_strength(lora_strength, lora=lora)
    sources = {
        part: open_source(inner, Path(place) / part, variant=variant, given=given)
        for part, inner in parts_of(kind, place).items()
    }
    loras = {} if lora is None else loras_of(Path(lora), sources)
    options = {"gradients": gradients, "variant": variant, "seed": seed}
    found = []
    for part, source in sources.items():
        update = loras.get(part)
        if update is not None:
            update = update._replace(scale=update.scale * lora_strength)
        inner = source.kind
        ours = _import(source, update) if target is None else load(inner, Path(target) / part)
        found.append(_compare(source, ours, lora=update, **options))
    return Report(found)


def _require_torch() -> None:
    missing = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if missing:
        raise VerifyError(
            f"verify compares with PyTorch: {' and '.join(missing)} must be installed, {_INSTALL}"
        )


def _import(source: Source, lora: Lora | None) -> Pretrained:
    module, shapes = described(source.kind, source.config, place=source.place)
    table, tensors = KINDS[source.kind].table(source.tensors), source.tensors
    if lora is not None:
        merged = merging(lora, strength=1)
        tensors = {name: merged(name, tensor) for name, tensor in tensors.items()}
    params = import_params(tensors, shapes, table, dtype=np.float32)
    return Pretrained(module, {"params": params})


def _compare(
    source: Source,
    ours: Pretrained,
    *,
    lora: Lora | None,
    gradients: bool,
    variant: str | None,
    seed: int,
) -> Comparison:
    import torch

    run = RUNS[source.kind]
    rng = np.random.default_rng(seed)
    inputs = run.inputs(ours.module, rng)
    model = _torch_model(source, ours.module, variant)
    if lora is not None:
        _run_beside(model, lora)
    with torch.set_grad_enabled(gradients):
        theirs = run.theirs(model, **{k: torch.from_numpy(x) for k, x in inputs.items()})
    wanted = {name: value.detach().numpy() for name, value in theirs.items()}
    # The outputs weighted at random, as evenly as may be: the loss whose gradients are compared.
    weights = {name: normal(rng, *value.shape) / value.size for name, value in wanted.items()}

    def loss(params: dict) -> tuple[Any, Outputs]:
        def apply(*args: Any, **keywords: Any) -> Any:
            return ours.module.apply({"params": params}, *args, **keywords)

        outputs = run.ours(apply, **inputs)
        return sum((outputs[name] * weights[name]).sum() for name in outputs), outputs

    params = ours.variables["params"]
    with jax.default_matmul_precision("highest"):
        if gradients:
            of_params, found = jax.jit(jax.grad(loss, has_aux=True))(params)
            total: Any = sum(
                (theirs[n] * torch.from_numpy(weight)).sum() for n, weight in weights.items()
            )
            total.backward()
            compared = _compare_gradients(source, of_params, model)
        else:
            found, compared = jax.jit(lambda params: loss(params)[1])(params), []
    if found.keys() != wanted.keys():
        raise AssertionError(f"outputs are {sorted(found)} here and {sorted(wanted)} in PyTorch")
    leaves = jax.tree.leaves(params)
    return Comparison(
        source.kind,
        source.place,
        len(leaves),
        sum(leaf.size for leaf in leaves),
        [_difference(name, found[name], value) for name, value in wanted.items()],
        compared,
        lora,
    )


def _difference(
    name: str, ours: Any, theirs: np.ndarray, *, scale: float | None = None
) -> Difference:
    ours = np.asarray(ours)
    if ours.shape != theirs.shape:
        raise VerifyError(f"{name}: {ours.shape} in JAX, {theirs.shape} in PyTorch")
    absolute = float(np.abs(ours - theirs).max())
    scale = float(np.abs(theirs).max()) if scale is None else scale
    return Difference(name, absolute, absolute / max(scale, 1e-30))


def _torch_model(source: Source, module: Any, variant: str | None) -> Any:
    import torch

    name = KINDS[source.kind].torch_class
    if name is None:
        from glfa_jax.convert import verify_fmri

        tensors = {k: torch.tensor(np.asarray(v, np.float32)) for k, v in source.tensors.items()}
        return getattr(verify_fmri, source.kind)(tensors, module)
    model_class = torch_class(source.kind)
    if _of_diffusers(source.kind):
        # Unless told not to, it advises loudly to install accelerate.
        options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    else:
        options = {"dtype": torch.float32}
    model = model_class.from_pretrained(source.place, variant=variant, **options)
    return model.eval()


def torch_class(kind: str) -> Any:
    """The class of diffusers or transformers for a kind of model, to be loaded in float32."""
    library = "diffusers" if _of_diffusers(kind) else "transformers"
    name = str(KINDS[kind].torch_class)
    found = getattr(importlib.import_module(library), name)
    if library == "diffusers" and found._keep_in_fp32_modules:
        # Means nothing where all is float32, but diffusers would ask for accelerate to obey it.
        return type(name, (found,), {"_keep_in_fp32_modules": None})
    return found


def _of_diffusers(kind: str) -> bool:
    return "_class_name" in KINDS[kind].identity


def _run_beside(model: Any, lora: Lora) -> None:
    """Has every adapted layer of PyTorch's model add its update to its output."""
    import torch
    import torch.nn.functional as F

    def beside(down: torch.Tensor, up: torch.Tensor) -> Callable[[Any, tuple, Any], Any]:
        def add(layer: Any, inputs: tuple, output: Any) -> Any:
            if isinstance(layer, torch.nn.Linear):
                update = F.linear(F.linear(inputs[0], down), up)
            else:
                convolve = getattr(F, f"conv{layer.weight.ndim - 2}d")
                inner = convolve(inputs[0], down, None, layer.stride, layer.padding, layer.dilation)
                update = convolve(inner, up)
            return output + lora.scale * update

        return add

    tensors = {k: torch.from_numpy(x) for k, x in export_lora(lora, prefix="").items()}
    for name in lora.modules:
        down, up = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")
        model.get_submodule(name).register_forward_hook(beside(down, up))


def _compare_gradients(source: Source, ours: Any, model: Any) -> list[Difference]:
    """All gradients under their stored names, relative to the largest of all."""
    kind = KINDS[source.kind]
    if kind.torch_class is None:
        theirs = {name: _numpy_gradient(tensor) for name, tensor in model.tensors.items()}
    else:
        theirs = _stored_gradients(model)
        theirs = dict(kind.current_names(theirs))
    table = kind.table(theirs)
    mine = export_views(ours, table)
    theirs = {name: value for name, value in theirs.items() if not table.ignores(name)}
    if mine.keys() != theirs.keys():
        raise AssertionError(f"gradients differ in {sorted(mine.keys() ^ theirs.keys())}")
    scale = max(float(np.abs(value).max()) for value in theirs.values())
    return [_difference(name, mine[name], theirs[name], scale=scale) for name in theirs]


def _numpy_gradient(parameter: Any) -> np.ndarray:
    shape = tuple(parameter.shape)
    return np.zeros(shape, np.float32) if parameter.grad is None else parameter.grad.numpy()


def _stored_gradients(model: Any) -> dict[str, np.ndarray]:
    """Stored in place of the parameters: the classes rename some as they store them."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(_numpy_gradient(parameter)))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return {name: tensor.copy() for name, tensor in read_tensors(folder).items()}
