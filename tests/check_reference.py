"""Compares our modules with vectors of the official implementation.

    python -m tests.check_reference DIR

DIR holds `*.npz` files; all sizes are read from them. Prints the largest error of every quantity,
relative to its largest magnitude, and exits non-zero when one is above 1e-5 (values) or 1e-4
(gradients), or when a file is not understood.
"""

import math
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glfa_jax.convert import glfa
from glfa_jax.convert.mapping import Table, export_params, import_params
from glfa_jax.metrics.nway import nway_exact
from glfa_jax.models.conditioning import Conditioning, ConvHead, LinearHead
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.glfa import GlfaLayer
from glfa_jax.training.losses import alignment_loss, contrastive_loss, reconstruction_loss

VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
# The Monte Carlo rows are noisy themselves: 32 rows beyond 4.5 standard errors have p < 3e-4.
STANDARD_ERRORS = 4.5

Vectors = dict[str, np.ndarray]


class Check(NamedTuple):
    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN too


def _relative(ours, theirs: np.ndarray) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.size != theirs.size:
        return float("inf")
    scale = max(float(np.abs(theirs).max()), 1e-30)
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max()) / scale


def _value(quantity: str, ours, theirs: np.ndarray) -> Check:
    return Check(quantity, _relative(ours, theirs), VALUE_TOLERANCE)


def _gradient(quantity: str, ours, theirs: np.ndarray) -> Check:
    return Check(quantity, _relative(ours, theirs), GRADIENT_TOLERANCE)


def _parameters(vectors: Vectors, prefix: str) -> Vectors:
    return {k.removeprefix(prefix): v for k, v in vectors.items() if k.startswith(prefix)}


def _import(module: nn.Module, inputs: tuple, parameters: Vectors, table: Table) -> dict:
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return {"params": import_params(parameters, shapes["params"], table)}


def check_alignment(vectors: Vectors) -> list[Check]:
    parameters = _parameters(vectors, "param.")
    x = vectors["x"][:, 0]
    sizes = {}
    if "global_align_weight" in parameters:
        patches = parameters["global_align_weight"].shape[-1]
        sizes["patch_size"] = math.isqrt(x[0].size // patches)
    if "weight" in parameters:
        sizes["kernel_size"] = math.isqrt(parameters["weight"].shape[-1])
    for name, size in sizes.items():
        if int(vectors.get(name, size)) != size:
            raise ValueError(f"{name} is {int(vectors[name])}, the parameters say {size}")
    module = GlfaLayer(
        height=x.shape[1],
        width=x.shape[2],
        global_part="patch_size" in sizes,
        local_part="kernel_size" in sizes,
        **sizes,
    )
    variables = _import(module, (x,), parameters, glfa.ALIGNMENT)
    y, pullback = jax.vjp(module.apply, variables, x)
    checks = [_value("y", y, vectors["y"])]
    if "cotangent" in vectors:
        gradients, grad_x = pullback(jnp.asarray(vectors["cotangent"][:, 0]))
        exported = export_params(gradients["params"], glfa.ALIGNMENT)
        ours = {"grad_x": grad_x} | {f"grad.{name}": value for name, value in exported.items()}
        given = [name for name in vectors if name == "grad_x" or name.startswith("grad.")]
        checks += [_gradient(name, ours[name], vectors[name]) for name in given]
    return checks


def check_autoencoder(vectors: Vectors) -> list[Check]:
    parameters = _parameters(vectors, "param.")
    x = vectors["x"][:, 0]

    def depth(prefix: str) -> int:
        return len({k.split(".")[1] for k in parameters if k.startswith(f"{prefix}.")})

    dim = parameters["cls_token"].shape[-1]
    module = FmriAutoencoder(
        height=x.shape[1],
        width=x.shape[2],
        patch_size=int(vectors["patch_size"]),
        dim=dim,
        depth=depth("blocks"),
        decoder_depth=depth("decoder_blocks"),
        num_heads=int(vectors["num_heads"]),
        mlp_ratio=parameters["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        latent=parameters["pred.weight"].shape[0],
    )
    x = jnp.asarray(x, jnp.float32)
    variables = _import(module, (x,), parameters, glfa.AUTOENCODER)
    out = jax.jit(module.apply)(variables, x)
    losses = {"loss_unmasked": reconstruction_loss(out.image, x)}
    if "mask" in vectors:
        losses["loss_masked"] = reconstruction_loss(
            out.image, x, jnp.asarray(vectors["mask"], jnp.float32)
        )
    ours = {
        "features": out.features,
        "latent": out.latent,
        "reconstruction_tokens": out.tokens,
        "reconstruction": out.image,
    } | losses
    return [_value(name, value, vectors[name]) for name, value in ours.items()]


def check_conditioning(vectors: Vectors) -> list[Check]:
    projection = _parameters(vectors, "param.projection.")
    head = _parameters(vectors, "param.clip_head.")
    features = vectors["features"]
    mapper = [projection[f"cond_state_transform.channel_mapper.{i}.weight"] for i in (0, 1)]
    module = Conditioning(
        tokens=mapper[1].shape[0],
        hidden_tokens=mapper[0].shape[0],
        num_heads=int(vectors["num_heads"]),
    )
    variables = _import(module, (features,), projection, glfa.CONDITIONING)
    embedding = jax.jit(module.apply)(variables, features)
    checks = [_value("embedding", embedding, vectors["embedding"])]
    if "dim_mapper.weight" in head:
        hidden = tuple(head[f"channel_mapper.{i}.weight"].shape[0] for i in (0, 2))
        clip_head, table = ConvHead(hidden, head["dim_mapper.weight"].shape[0]), glfa.CONV_HEAD
        inputs = embedding
    else:
        clip_head, table = LinearHead(head["1.weight"].shape[0]), glfa.LINEAR_HEAD
        inputs = features[:, :, 0]
    variables = _import(clip_head, (inputs,), head, table)
    latent = jax.jit(clip_head.apply)(variables, inputs)
    return [*checks, _value("clip_latent", latent, vectors["clip_latent"])]


def check_alignment_losses(vectors: Vectors) -> list[Check]:
    maps = (jnp.asarray(vectors[name][:, :, :, 0], jnp.float32) for name in ("x", "y"))
    loss = alignment_loss(*maps, jnp.asarray(vectors["mask"], jnp.float32))
    return [
        _value("reg", loss.regularisation, vectors["reg"]),
        _value("align", loss.alignment, vectors["align"]),
    ]


def check_contrastive_loss(vectors: Vectors) -> list[Check]:
    names = ("fmri", "image", "text", "logit_scale")
    fmri, image, text, scale = (jnp.asarray(vectors[name], jnp.float32) for name in names)
    loss = contrastive_loss(fmri, image=image, text=text, logit_scale=scale)
    return [
        _value("image_loss", loss.image, vectors["image_loss"]),
        _value("text_loss", loss.text, vectors["text_loss"]),
        _value("total", loss.total, vectors["total"]),
    ]


def check_nway(vectors: Vectors) -> list[Check]:
    """Exact accuracies against the official Monte Carlo ones, in standard errors."""
    checks = []
    for clip, n, top_k, accuracy in vectors["rows"]:
        row = slice(int(clip), int(clip) + 1)
        probabilities, classes = vectors["probabilities"], vectors["ground_truth_classes"]
        exact = float(
            nway_exact(probabilities[row], labels=classes[row], n=int(n), top_k=int(top_k))[0]
        )
        # Half a trial keeps the error of a certain outcome from being zero.
        trials = int(vectors["trials"])
        error = max(np.sqrt(exact * (1 - exact) / trials), 0.5 / trials)
        quantity = f"clip {int(clip)}, {int(n)}-way top-{int(top_k)} (standard errors)"
        checks.append(Check(quantity, abs(exact - accuracy) / error, STANDARD_ERRORS))
    return checks


# The tensor that tells each kind of file, most specific first.
_KINDS: tuple[tuple[str, Callable[[Vectors], list[Check]]], ...] = (
    ("ground_truth_classes", check_nway),
    ("reconstruction", check_autoencoder),
    ("clip_latent", check_conditioning),
    ("logit_scale", check_contrastive_loss),
    ("align", check_alignment_losses),
    ("param.global_align_weight", check_alignment),
    ("param.weight", check_alignment),
)


def check_file(path: Path) -> list[Check]:
    """All comparisons of one file. Raises ValueError when its kind cannot be told."""
    with np.load(path, allow_pickle=False) as archive:
        vectors = dict(archive)
    for tensor, check in _KINDS:
        if tensor in vectors:
            with jax.default_matmul_precision("highest"):
                return check(vectors)
    raise ValueError(f"{path}: none of the known quantities in it, holds {sorted(vectors)[:6]} ...")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(f"usage: python -m tests.check_reference DIR; {arguments} is no folder")
        return 2
    files = sorted(Path(arguments[0]).glob("*.npz"))
    if not files:
        print(f"{arguments[0]}: no .npz files")
        return 2
    failed = 0
    for path in files:
        try:
            checks = check_file(path)
        except KeyError as error:
            print(f"{path.stem}: {error} is missing or not known here")
            failed += 1
            continue
        except (ValueError, TypeError, IndexError, OSError, zipfile.BadZipFile) as error:
            print(f"{path.stem}: cannot be checked ({error})")
            failed += 1
            continue
        for check in checks:
            verdict = "ok" if check.passed else "FAILED"
            quantity = f"{path.stem}: {check.quantity}"
            print(f"{quantity:62s} {check.error:9.2e} (at most {check.tolerance:.0e}) {verdict}")
            failed += not check.passed
    print(f"{failed} failed" if failed else "all agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
