"""UNet3D at full size against diffusers' UNet3DConditionModel: output and gradients in float32.

    python -m benchmarks.unet3d_parity

Makes ModelScope's architecture (1.41 billion parameters) with random weights in PyTorch, saves it
as a user would have it on disk, runs it, frees it, loads the folder with `glfa_jax` and runs the
same sample. Needs 15 GiB of memory and 6 GB in the folder for temporary files. Prints one
line of JSON, writes it to benchmarks/results, and fails if the two disagree.
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks.measuring import parser, write_result
from benchmarks.models import UNET, random_torch_model
from glfa_jax.convert import pretrained
from glfa_jax.convert.mapping import export_params
from glfa_jax.convert.unet3d import TABLE

PACKAGES = ("jax", "jaxlib", "flax", "torch", "diffusers", "numpy")
RESULT = Path(__file__).parent / "results" / "unet3d_parity.json"
FORWARD, GRADIENT = 1e-4, 1e-3  # largest difference, relative to the largest magnitude
# One of each kind of layer, at different depths; their gradients are compared beside the inputs'.
WATCHED = (
    "time_embedding.linear_2.weight",
    "down_blocks.0.temp_attentions.1.transformer_blocks.0.attn1.to_q.weight",
    "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "mid_block.resnets.0.conv1.weight",
    "mid_block.temp_convs.1.conv4.3.weight",
    "up_blocks.1.resnets.0.conv_shortcut.weight",
    "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
)


def architecture(divisor: int) -> dict[str, Any]:
    """ModelScope's, every width divided."""
    widths = [width // divisor for width in UNET["block_out_channels"]]
    names = ("cross_attention_dim", "attention_head_dim")
    return UNET | {"block_out_channels": widths} | {name: UNET[name] // divisor for name in names}


def make_inputs(config: dict[str, Any], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """A noisy latent (b, f, h, w, c), its conditioning, and what weights the output in the loss."""
    rng = np.random.default_rng(args.seed)
    shape = (1, args.frames, args.size, args.size, config["in_channels"])
    tokens = (1, args.tokens, config["cross_attention_dim"])
    normal = rng.standard_normal
    return {
        "sample": normal(shape, np.float32),
        "conditioning": normal(tokens, np.float32),
        "weight": normal(shape, np.float32),
    }


def run_torch(
    config: dict[str, Any], inputs: dict[str, np.ndarray], folder: Path, seconds: dict[str, float]
) -> tuple[int, dict[str, np.ndarray]]:
    """Number of parameters; output and gradients. The model stays in `folder` only."""
    start = time.perf_counter()
    model = random_torch_model("unet3d", config, seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in WATCHED)
    model.save_pretrained(folder)
    seconds["torch_make_and_save"] = time.perf_counter() - start

    start = time.perf_counter()
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    for name in ("sample", "conditioning"):
        given[name].requires_grad_()
    channels_first = (0, 4, 1, 2, 3)
    output = model(
        given["sample"].permute(channels_first), torch.tensor([500]), given["conditioning"]
    ).sample
    (output * given["weight"].permute(channels_first)).sum().backward()
    results = {name: given[name].grad.numpy() for name in ("sample", "conditioning")}
    watched = dict(model.named_parameters())
    results |= {name: watched[name].grad.numpy() for name in WATCHED}
    results["output"] = output.detach().numpy().transpose(0, 2, 3, 4, 1)
    seconds["torch_forward_and_gradients"] = time.perf_counter() - start
    return sum(parameter.numel() for parameter in model.parameters()), results


def run_ours(
    inputs: dict[str, np.ndarray], folder: Path, seconds: dict[str, float]
) -> dict[str, np.ndarray]:
    start = time.perf_counter()
    module, variables = pretrained.load("unet3d", folder, dtype=None)
    flat = flatten_dict(variables.pop("params"))
    for path in flat:  # one by one: both copies together would take 11 GiB
        flat[path] = jax.device_put(flat[path])
    watched = {path: flat.pop(path) for path in list(flat) if TABLE.torch_name(path) in WATCHED}
    jax.block_until_ready(flat)
    seconds["load"] = time.perf_counter() - start

    def loss(watched: dict, sample: jax.Array, conditioning: jax.Array, frozen: dict) -> tuple:
        params = unflatten_dict(frozen | watched)
        output = module.apply({"params": params}, sample, np.array([500], np.int32), conditioning)
        return (output * inputs["weight"]).sum(), output

    given = (watched, inputs["sample"], inputs["conditioning"], flat)
    start = time.perf_counter()
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True)).lower(*given).compile()
    seconds["compile"] = time.perf_counter() - start
    start = time.perf_counter()
    (of_watched, of_sample, of_conditioning), output = jax.block_until_ready(program(*given))
    seconds["forward_and_gradients"] = time.perf_counter() - start
    results = export_params(unflatten_dict(of_watched), TABLE)
    return results | {"sample": of_sample, "conditioning": of_conditioning, "output": output}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    config, seconds = architecture(args.width_divisor), {}
    inputs = make_inputs(config, args)
    with tempfile.TemporaryDirectory() as folder:
        parameters, theirs = run_torch(config, inputs, Path(folder), seconds)
        gc.collect()
        with jax.default_matmul_precision("highest"):
            ours = run_ours(inputs, Path(folder), seconds)
    errors = {
        name: float(np.abs(np.asarray(ours[name]) - value).max() / np.abs(value).max())
        for name, value in theirs.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on a Mac
    return {
        "parameters": parameters,
        "width_divisor": args.width_divisor,
        "sample": list(inputs["sample"].shape),
        "tokens": args.tokens,
        "seed": args.seed,
        "error_output": errors.pop("output"),
        "error_gradients": errors,
        "output_std": float(theirs["output"].std()),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_rss_gib": round(peak / 2 ** (30 if sys.platform == "darwin" else 20), 2),
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--width-divisor", type=int, default=1, help="10 is a quick try")
    made.add_argument("--frames", type=int, default=2)
    made.add_argument("--size", type=int, default=8, help="height and width of the latent")
    made.add_argument("--tokens", type=int, default=77)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", dest="json", type=Path, help="the same as --json")
    made.set_defaults(json=RESULT)
    args = made.parse_args()
    result = compare(args)
    print(json.dumps(result))
    write_result(args.json, result, packages=PACKAGES)
    worst = max(result["error_gradients"].values())
    if not (result["error_output"] < FORWARD and worst < GRADIENT):
        sys.exit(f"output or gradients differ by more than {FORWARD} and {GRADIENT}")


if __name__ == "__main__":
    main()
