"""Wan's autoencoder against diffusers' class on torch, side by side: time and agreement.

    python -m benchmarks.wan_vae --size full --frames 13 --pixels 128 --json RESULT.json

Both take turns on one clip and the same random weights in float32; a time is the median over
rounds. torch runs with its kernels laid out as they come and channels last, and the better counts.
Fails where the two differ by more than a ten-thousandth of the largest magnitude.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import models
from benchmarks.measuring import median_seconds, parser, table, write_result
from benchmarks.side_by_side import channels_first, channels_last, torch_device
from glfa_jax.convert import pretrained
from glfa_jax.convert.mapping import import_params
from glfa_jax.convert.wan_vae import TABLE
from glfa_jax.training.cpu_libraries import compiler_options

AGREEMENT = 1e-4
SIZES = {"small": models.small_wan_vae(16, channels=4), "full": models.WAN_VAE}
Call = Callable[[], np.ndarray]


def calls(config: dict[str, Any], *, frames: int, pixels: int) -> dict[str, dict[str, Call]]:
    """What is measured to who computes it; all give channels last."""
    theirs = models.random_torch_model("wan_vae", config, seed=0)
    ours = pretrained.build("wan_vae", config)
    source = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    params = import_params(source, pretrained.parameter_shapes("wan_vae", ours), TABLE)
    variables = {"params": jax.device_put(params)}
    rng = np.random.default_rng(0)
    video = rng.uniform(-1, 1, (1, frames, pixels, pixels, 3)).astype(np.float32)
    side = pixels // ours.pixels_per_latent
    latents = rng.standard_normal(
        (1, 1 + (frames - 1) // ours.frames_per_latent, side, side, ours.z_dim), np.float32
    )
    jit = partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))
    encode = jit(lambda v, x: ours.apply(v, x, method="encode").mean)
    decode = jit(lambda v, x: ours.apply(v, x, method="decode"))
    device = torch_device()
    laid_out = models.random_torch_model("wan_vae", config, seed=0).to(device)
    channels_last(laid_out)
    made: dict[str, dict[str, Call]] = {
        "encode": {"glfa_jax": lambda: np.asarray(encode(variables, video))},
        "decode": {"glfa_jax": lambda: np.asarray(decode(variables, latents))},
    }
    for name, model in (("torch", theirs.to(device)), ("torch, channels last", laid_out)):
        made["encode"][name] = in_torch(lambda x, m=model: m.encode(x).latent_dist.mean, video)
        made["decode"][name] = in_torch(lambda x, m=model: m.decode(x).sample, latents)
    return made


def in_torch(run: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> Call:
    given = torch.from_numpy(channels_first(x)).to(torch_device())

    def call() -> np.ndarray:
        with torch.inference_mode():
            return np.moveaxis(run(given).cpu().numpy(), 1, -1)

    return call


def compare(what: str, sides: dict[str, Call], *, rounds: int) -> dict[str, Any]:
    found = {name: call() for name, call in sides.items()}
    wanted = found["torch"]
    apart = float(np.abs(found["glfa_jax"] - wanted).max() / np.abs(wanted).max())
    seconds = median_seconds(sides, rounds=rounds, before=dict.fromkeys(sides, lambda: None))
    best = min(value for name, value in seconds.items() if name != "glfa_jax")
    ratio = best / seconds["glfa_jax"]
    return {"what": what, "seconds": seconds, "torch_over_jax": ratio, "difference": apart}


def main(argv: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--size", choices=SIZES, default="small")
    made.add_argument("--frames", type=int, default=13)
    made.add_argument("--pixels", type=int, default=64)
    args = made.parse_args(argv)
    sides = calls(SIZES[args.size], frames=args.frames, pixels=args.pixels)
    rows = [compare(what, calls, rounds=args.rounds) for what, calls in sides.items()]
    names = list(rows[0]["seconds"])
    lines = []
    for row in rows:
        seconds = (f"{row['seconds'][name]:.2f} s" for name in names)
        ratio, apart = f"{row['torch_over_jax']:.2f}", f"{row['difference']:.1e}"
        lines.append([row["what"], *seconds, ratio, apart])
    print(table(["", *names, "best torch / glfa_jax", "apart"], lines))
    facts = {"size": args.size, "frames": args.frames, "pixels": args.pixels, "rows": rows}
    packages = ("jax", "jaxlib", "flax", "torch", "diffusers")
    write_result(args.json, facts | {"rounds": args.rounds}, packages=packages)
    return int(max(row["difference"] for row in rows) > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
