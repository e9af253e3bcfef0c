"""LoRA weights of a denoiser as diffusers, PEFT and kohya's scripts name them <-> models.lora.

A module of rank r adds `alpha / r * up @ down` to its weight. PyTorch stores `down` with the
kernel of the layer it adapts, (r, in, *taps), and `up` with a kernel of one tap, (out, r, 1 ...).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax.convert.adapted import ADAPTED, Adapted
from glfa_jax.convert.mapping import ConversionError, Transform
from glfa_jax.convert.stream import Change, is_floating

# What may follow the name of a module, newest first. An adapter's own name may stand inside.
_PARTS = (
    ("down", re.compile(r"\.lora_A(\.[^.]+)?\.weight$")),
    ("up", re.compile(r"\.lora_B(\.[^.]+)?\.weight$")),
    ("down", re.compile(r"([._]lora\.|\.lora_)down\.weight$")),
    ("up", re.compile(r"([._]lora\.|\.lora_)up\.weight$")),
    ("alpha", re.compile(r"([._]lora)?\.alpha$")),
)
_KOHYA = "lora_unet_"
_UNSUPPORTED = (
    ("of a text encoder", re.compile(r"(^|\.)text_encoder(_\d)?\.|^(lora_)?te\d?_")),
    ("DoRA", re.compile(r"\.(lora_magnitude_vector|dora_scale)\b")),
    ("LoHa", re.compile(r"\.hada_")),
    ("LoKr", re.compile(r"\.lokr_")),
    ("LoCon with a core tensor", re.compile(r"\.lora_mid\.")),
    ("biases", re.compile(r"\.(lora_B|lora_up|up)(\.[^.]+)?\.bias$|\.diff_b$")),
    ("embeddings", re.compile(r"\.lora_embedding_[AB]\b")),
    ("whole differences", re.compile(r"\.diff$")),
)

# Options of an adapter_config.json that change nothing in what the stored tensors mean.
_WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
}
_READ = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}
_LARGEST = 1e9  # of those numbers
# What could take for ever to search for: repeated groups, and many repetitions.
_INTRICATE = re.compile(r"\)[*+{]|([*+}].*){5}")
# Only these values; other ways to initialise change the weights that the update is added to.
_FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


class Lora(NamedTuple):
    """What `models.lora.merge` takes: an update of the parameters by `scale * down @ up`.

    kind: of the model that it adapts.
    """

    tree: dict
    scale: float
    kind: str = "unet3d"

    @property
    def modules(self) -> list[str]:
        """The adapted layers, as PyTorch names them."""
        return list(_exported(self))


@dataclass
class _Module:
    """One adapted layer, as far as it has been found."""

    path: tuple[str, ...]
    transform: Transform
    weight: tuple[int, ...]  # its shape in PyTorch
    parts: dict[str, np.ndarray] = field(default_factory=dict)


def import_lora(
    source: Mapping[str, np.ndarray],
    *,
    params: Any,
    config: Mapping[str, Any] | None = None,
    kind: str = "unet3d",
) -> Lora:
    """The LoRA tree for the `params` (arrays or shapes) of a model of `kind`, in float32.

    `config`: an adapter_config.json, or what a safetensors file says of its adapter. Where neither
    it nor an alpha tensor says otherwise alpha is the rank, the scale 1. Where the modules' scales
    differ each is multiplied into its `up` and the scale is 1. Raises ConversionError with all that
    does not fit or is not supported.
    """
    adapted = ADAPTED[kind]
    modules = _modules(params, adapted)
    other_names: dict[str, str] = {}
    for module in modules:
        original = adapted.original_name(module)
        other_names[original] = module
        for name in (module, original):
            other_names[_KOHYA + name.replace(".", "_")] = module
    problems: list[str] = []
    strange: dict[str, list[str]] = defaultdict(list)
    for name, tensor in source.items():
        what = next((what for what, pattern in _UNSUPPORTED if pattern.search(name)), None)
        if what is not None:
            strange[what].append(name)
            continue
        owner, part = _parse(name, adapted)
        owner = other_names.get(owner, owner)
        if part is None:
            problems.append(f"unused: {name}")
        elif owner not in modules:
            problems.append(f"unknown module: {name}")
        elif part in modules[owner].parts:
            problems.append(f"given twice: {part} of {owner}, the second time as {name}")
        else:
            modules[owner].parts[part] = tensor
    for what, names in strange.items():
        problems.append(f"not supported: {what}, {len(names)} tensors such as {names[0]}")

    options, more = _options(config, adapted)
    problems += more
    tree: dict[tuple[str, ...], np.ndarray] = {}
    scales: dict[tuple[str, ...], float] = {}
    for name, module in modules.items():
        if not module.parts:
            continue
        faults = _faults(name, module)
        if not faults:
            scale, faults = _scale(name, module, options)
            scales[module.path] = scale
            down, up = (module.parts[part].astype(np.float32) for part in ("down", "up"))
            tree[(*module.path, "down")] = np.asarray(module.transform.to_linen(down), order="C")
            tree[(*module.path, "up")] = np.asarray(up.reshape(up.shape[:2]).T, order="C")
        problems += faults
    if not strange and not any(_parse(name, adapted)[1] for name in source):
        held = f", the tensors are {', '.join(sorted(source)[:3])} ..." if source else ""
        problems = [f"no LoRA weights are there at all{held}"]
    if problems:
        listing = "\n  ".join(problems)
        raise ConversionError(f"LoRA: {len(problems)} things do not fit:\n  {listing}")
    distinct = set(scales.values())
    if len(distinct) == 1:
        return Lora(unflatten_dict(tree), distinct.pop(), kind)
    for path, scale in scales.items():
        tree[(*path, "up")] = (tree[(*path, "up")] * np.float64(scale)).astype(np.float32)
    return Lora(unflatten_dict(tree), 1.0, kind)


def export_lora(lora: Lora, *, prefix: str) -> dict[str, np.ndarray]:
    """The inverse of `import_lora`, with `adapter_config`: tensors as PEFT names them.

    `prefix`: "unet." or "transformer." for diffusers' load_lora_weights, "base_model.model." for
    PEFT's own files.
    """
    tensors = {}
    for name, (transform, down, up) in _exported(lora).items():
        down = transform.to_torch(down)
        up = up.T.reshape(*up.T.shape, *[1] * (down.ndim - 2))
        tensors[f"{prefix}{name}.lora_A.weight"] = np.asarray(down, order="C")
        tensors[f"{prefix}{name}.lora_B.weight"] = np.asarray(up, order="C")
    return tensors


def merging(lora: Lora, *, strength: float) -> Change:
    """Adds `strength` times the update to a model's tensor as PyTorch stores it, by its name.

    Computed in float32 or what is wider; tensors that are not adapted come back as they are.
    """
    exported = _exported(lora)
    scale = np.float32(strength * lora.scale)

    def merged(name: str, tensor: np.ndarray) -> np.ndarray:
        module = name.removesuffix(".weight")
        if module == name or module not in exported:
            return tensor
        transform, down, up = exported[module]
        return tensor + transform.to_torch(scale * (down @ up))

    return merged


def adapter_config(lora: Lora) -> dict[str, Any]:
    """What PEFT must know beside the tensors: ranks, scale, adapted modules."""
    ranks = {name: up.shape[0] for name, (_, _, up) in _exported(lora).items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {f"^{name}": own for name, own in ranks.items() if own != rank}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": lora.scale * rank,
        "rank_pattern": others,
        "alpha_pattern": {name: lora.scale * own for name, own in others.items()},
        "target_modules": sorted(ranks),
        "bias": "none",
    }


def _modules(params: Any, adapted: Adapted) -> dict[str, _Module]:
    """Every layer that has a kernel, by its PyTorch name."""
    modules = {}
    leaves: dict[tuple[str, ...], Any] = flatten_dict(params)
    for path, leaf in leaves.items():
        if path[-1] == "kernel":
            transform = adapted.table.transform(path, len(leaf.shape))
            weight = transform.to_torch(np.broadcast_to(np.zeros((), bool), leaf.shape)).shape
            modules[adapted.module_name(path)] = _Module(path, transform, weight)
    return modules


def _parse(name: str, adapted: Adapted) -> tuple[str, str | None]:
    """A tensor's module and the part it is of it; None for no part of a LoRA."""
    prefix = rf"^(base_model\.model\.)?(({adapted.part}|diffusion_model)\.)?"
    name = re.sub(prefix, "", name).replace(".processor.", ".")
    for part, pattern in _PARTS:
        match = pattern.search(name)
        if match:
            owner = name[: match.start()]
            # Attention processors did not know that the last projection is the first of a list.
            return re.sub(r"\.to_out$", ".to_out.0", owner), part
    return name, None


def _options(
    config: Mapping[str, Any] | None, adapted: Adapted
) -> tuple[dict[str, Any] | None, list[str]]:
    """The options that are read, and problems with the others."""
    if config is None:
        return None, []
    # A pipeline's metadata names the model before each option.
    options = {key.removeprefix(f"{adapted.part}."): value for key, value in config.items()}
    numbers: list[tuple[str, Any]] = [(key, options.get(key)) for key in ("r", "lora_alpha")]
    problems = []
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = options.get(key) or {}
        if not isinstance(patterns, Mapping):
            problems.append(f"{key} is {patterns!r:.60}, must map patterns to numbers")
            continue
        for pattern, value in patterns.items():
            numbers.append((f"{key} {pattern!r}", value))
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                problems.append(f"{key} {pattern!r:.60} is no regular expression ({error})")
            if _INTRICATE.search(pattern):
                problems.append(f"{key} {pattern!r:.60} is too intricate a regular expression")
    problems += [
        f"{key:.80} is {value!r:.60}, must be a finite number"
        for key, value in numbers
        if type(value) not in (int, float) or not abs(value) <= _LARGEST
    ]
    for key, value in options.items():
        if key.startswith("text_encoder.") or key in _WITHOUT_EFFECT | _READ:
            continue
        allowed = _FIXED.get(key)
        if value not in allowed if allowed else value:
            problems.append(f"{key:.60} {value!r:.60} is not supported")
    if problems:  # without options, so that nothing is reported in their terms
        return None, [f"adapter configuration: {problem}" for problem in problems]
    return options, []


def _faults(name: str, module: _Module) -> list[str]:
    """What keeps a module's tensors from being a pair that fits the layer."""
    missing = [part for part in ("down", "up") if part not in module.parts]
    if missing:
        return [f"missing: {part} of {name}" for part in missing]
    out, *inner = module.weight
    down, up = (tuple(module.parts[part].shape) for part in ("down", "up"))
    faults = [
        f"dtype: {part} of {name} is {module.parts[part].dtype}, expected floating-point numbers"
        for part in ("down", "up")
        if not is_floating(module.parts[part].dtype)
    ]
    if not down or down[1:] != tuple(inner):
        expected = ", ".join(map(str, ("rank", *inner)))
        faults.append(f"shape: down of {name} is {down}, expected ({expected})")
    one_tap = (1,) * (len(inner) - 1)
    if module.parts["up"].ndim < 2 or (up[0], *up[2:]) != (out, *one_tap):
        expected = ", ".join(map(str, (out, "rank", *one_tap)))
        faults.append(f"shape: up of {name} is {up}, expected ({expected})")
    if not faults and (down[0] != up[1] or not down[0]):
        faults.append(f"rank: {name} has {down[0]} in down and {up[1]} in up")
    return faults


def _scale(
    name: str, module: _Module, options: Mapping[str, Any] | None
) -> tuple[float, list[str]]:
    """By which `up @ down` is multiplied, and what speaks against it."""
    faults, rank = [], module.parts["down"].shape[0]
    alpha, divisor = float(rank), float(rank)
    if options is not None:
        promised = _by_pattern(name, options, "rank_pattern", "r")
        if promised != rank:
            faults.append(f"rank: {name} has {rank}, the adapter configuration says {promised}")
        alpha = _by_pattern(name, options, "alpha_pattern", "lora_alpha")
        divisor = math.sqrt(rank) if options.get("use_rslora") else rank
    if "alpha" in module.parts:
        own = module.parts["alpha"]
        if own.size != 1:
            return 1.0, [f"shape: alpha of {name} is {own.shape}, expected ()"]
        own = float(own.reshape(()))
        if options is not None and own != alpha:
            faults.append(f"alpha: {name} has {own}, the adapter configuration says {alpha}")
        alpha = own
    if not math.isfinite(alpha):
        faults.append(f"alpha: {name} has {alpha}, must be finite")
    # As many digits as a float surely has: scale * rank / rank must give the scale again.
    return float(f"{alpha / divisor:.15g}"), faults


def _by_pattern(name: str, options: Mapping[str, Any], patterns: str, default: str) -> Any:
    """PEFT's rule: the first pattern that is the end of the module's name."""
    for pattern, value in (options.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return options[default]


def _exported(lora: Lora) -> dict[str, tuple[Transform, np.ndarray, np.ndarray]]:
    leaves: dict[tuple[str, ...], Any] = flatten_dict(lora.tree)
    adapted, exported = ADAPTED[lora.kind], {}
    for path in dict.fromkeys(path[:-1] for path in leaves):
        down, up = (np.asarray(leaves[(*path, part)]) for part in ("down", "up"))
        transform = adapted.table.transform(path, down.ndim)
        exported[adapted.module_name(path)] = transform, down, up
    return exported
