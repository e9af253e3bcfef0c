"""Guided sampling in glfa_jax and in torch (diffusers), side by side.

    python -m benchmarks.sampling --size small --json benchmarks/results/sampling_cpu.json
    python -m benchmarks.sampling --size full --batch 16 --dtype bfloat16   # on a GPU

From noise and conditions to pixels, as `eval.sample` does it after the fMRI encoder: DPM-Solver++
(2M) with classifier-free guidance, two conditions a step, then the VAE's decoder. Ours is one
compiled program of `glfa_jax.diffusion`. Theirs is diffusers' UNet3DConditionModel,
DPMSolverMultistepScheduler and AutoencoderKL with the same weights, in inference mode, in several
settings (`VARIANTS`); the fastest counts.

First, in float32 at highest precision, both make the same video: to `AGREEMENT`, pixels lying in
[-1, 1]. Then our process takes turns with one of theirs at a time, every turn one batch; a time is
the median over turns. Memory: the device's peak, weights included; on a CPU weights and what
resident memory grows by, at most, within one batch.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import SCHEDULE
from benchmarks.side_by_side import (
    CHANNELS,
    InJax,
    InTorch,
    Side,
    Size,
    by_variant,
    bytes_of,
    channels_first,
    channels_last,
    conclude,
    options,
    require_torch,
    sizes,
    write_models,
)

AGREEMENT = 5e-3  # largest difference of a pixel in float32, 8 bits being steps of 8e-3
VARIANTS = {
    ("cpu", "float32"): ("eager", "channels-last", "compile"),
    ("cpu", "bfloat16"): ("eager", "channels-last"),
    ("gpu", "float32"): ("eager", "channels-last", "compile"),
    ("gpu", "bfloat16"): (
        "eager",
        "channels-last",
        "float16",
        "float16+channels-last",
        "compile",
        "compile+channels-last",
    ),
}


def make_inputs(size: Size, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    tokens = (size.tokens, size.unet["cross_attention_dim"])
    latent = (size.side, size.side, CHANNELS)
    return {
        "noise": rng.standard_normal((rows, size.frames, *latent), np.float32),
        "condition": rng.standard_normal((rows, *tokens), np.float32),
        "negative": rng.standard_normal((1, *tokens), np.float32),
    }


class Ours(InJax):
    """glfa_jax: what `trained.sampler.VideoSampler` compiles, without the fMRI encoder."""

    def __init__(
        self,
        folder: Path,
        size: Size,
        *,
        rows: int,
        dtype: str,
        exact: bool,
        args: argparse.Namespace,
    ):
        import jax
        import jax.numpy as jnp

        from glfa_jax.convert import pretrained
        from glfa_jax.diffusion.guidance import guided
        from glfa_jax.diffusion.sampler import sample
        from glfa_jax.diffusion.schedule import Schedule
        from glfa_jax.files import read_object

        super().__init__(exact=exact)
        schedule = Schedule.from_config(read_object(SCHEDULE))
        kind = jnp.dtype(dtype)
        options = {"dtype": kind, "compute_dtype": kind}
        unet, unet_variables = pretrained.load("unet3d", folder / "unet", **options)
        vae, vae_variables = pretrained.load("vae", folder / "vae", **options)
        models = jax.device_put({"unet": unet_variables, "vae": vae_variables})

        @jax.jit
        def generate(models: dict, inputs: dict, scale: Any) -> Any:
            denoise = guided(
                lambda x, t, c: unet.apply(models["unet"], x, t, c),
                condition=inputs["condition"],
                negative=inputs["negative"],
                scale=scale,
            )
            noise = inputs["noise"]
            latents = sample(denoise, noise, schedule=schedule, steps=args.steps, method="dpm++")
            video = vae.apply(models["vae"], vae.from_diffusion(latents), method="decode")
            return jnp.clip(video, -1, 1)

        given = (models, jax.device_put(make_inputs(size, rows)), jnp.float32(args.guidance))
        self._held = bytes_of(jax.tree.leaves(given))
        start = time.perf_counter()
        compiled = generate.lower(*given).compile()
        self._compiled = time.perf_counter() - start
        self._generate = partial(compiled, *given)

    def facts(self) -> dict[str, Any]:
        return {"platform": self._jax.default_backend(), "compile_seconds": self._compiled}

    def run(self) -> float:
        """Seconds of a batch."""
        start = time.perf_counter()
        self._jax.block_until_ready(self._generate())
        return time.perf_counter() - start

    def memory(self) -> int:
        return self._memory.of(self.run, held=self._held)

    def video(self) -> np.ndarray:
        return np.asarray(self._generate())


class Theirs(InTorch):
    """diffusers; `variant`: words joined by "+", as in VARIANTS."""

    def __init__(
        self,
        folder: Path,
        size: Size,
        *,
        rows: int,
        dtype: str,
        variant: str,
        args: argparse.Namespace,
    ):
        import diffusers
        import torch

        super().__init__(variant)
        words, device = self._words, self._device
        kind = torch.float16 if "float16" in words else getattr(torch, dtype)
        options = {"low_cpu_mem_usage": False, "torch_dtype": kind}
        models = [
            getattr(diffusers, name).from_pretrained(folder / part, **options).eval().to(device)
            for part, name in (("unet", "UNet3DConditionModel"), ("vae", "AutoencoderKL"))
        ]
        if "channels-last" in words:
            for model in models:
                channels_last(model)
        unet, vae = models
        call, decode = unet, vae.decode
        if "compile" in words:
            call, decode = torch.compile(call), torch.compile(decode)
        solver = diffusers.DPMSolverMultistepScheduler
        scheduler = solver.from_config(solver.load_config(SCHEDULE))
        inputs = make_inputs(size, rows)
        inputs["noise"] = channels_first(inputs["noise"])
        given = {name: torch.from_numpy(x).to(device, kind) for name, x in inputs.items()}
        condition = given["condition"]
        both = torch.cat([given["negative"].expand_as(condition), condition])
        held = (*unet.parameters(), *vae.parameters(), *given.values())
        self._held = bytes_of(held)

        @torch.inference_mode()
        def generate() -> Any:
            scheduler.set_timesteps(args.steps, device=device)
            latents = given["noise"]
            for t in scheduler.timesteps:
                doubled = scheduler.scale_model_input(torch.cat([latents, latents]), t)
                away, towards = call(doubled, t, encoder_hidden_states=both).sample.chunk(2)
                prediction = away + args.guidance * (towards - away)
                latents = scheduler.step(prediction, t, latents).prev_sample
            frames = latents.transpose(1, 2).flatten(0, 1) / vae.config.scaling_factor
            video = decode(frames).sample.float().clamp(-1, 1)
            return video.permute(0, 2, 3, 1).unflatten(0, (rows, -1))

        self._generate = generate

    def run(self) -> float:
        """Seconds of a batch."""
        start = time.perf_counter()
        self._generate()
        self._synchronize()
        return time.perf_counter() - start

    def memory(self) -> int:
        self._forget_peak()
        return self._memory.of(self.run, held=self._held)

    def video(self) -> np.ndarray:
        return self._generate().cpu().numpy()


def check(folder: Path, size: Size, args: argparse.Namespace, *, rows: int) -> float:
    """Largest difference of a pixel in float32; ends the program where it is large."""
    given = {"rows": rows, "dtype": "float32", "args": args}
    with Side(Ours, folder, size, exact=True, **given) as side:
        ours = side("video")
    with Side(Theirs, folder, size, variant="exact", **given) as side:
        theirs = side("video")
    difference = float(np.abs(ours - theirs).max())
    # The comparison says something: pixels differ and few are cut off.
    if theirs.std() < 0.1 or np.mean(np.abs(theirs) == 1) > 0.5:
        sys.exit(f"the video is too plain to compare: standard deviation {theirs.std()}")
    if ours.shape != theirs.shape or not difference < AGREEMENT:
        sys.exit(f"the sides do not make the same video: pixels differ by {difference}")
    return difference


def measure(
    folder: Path, size: Size, args: argparse.Namespace, *, rows: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ours, and theirs by variant."""
    given = {"rows": rows, "dtype": args.dtype, "args": args}
    own = []
    with Side(Ours, folder, size, exact=False, **given) as ours:
        facts = ours("facts")
        facts["first_call_seconds"] = ours("run")
        facts["memory_bytes"] = ours("memory")
        if not np.isfinite(ours("video")).all():
            sys.exit("ours: the video is not finite")

        def measured(theirs: Side, variant: str) -> dict[str, Any]:
            begin = theirs("run")
            finite = bool(np.isfinite(theirs("video")).all())
            memory, times = theirs("memory"), []
            for _ in range(args.rounds):
                own.append(ours("run"))
                times.append(theirs("run"))
            row = {"seconds_a_batch": statistics.median(times), "memory_bytes": memory}
            return row | {"first_call_seconds": begin, "finite": finite}

        found = by_variant(
            args.variants or VARIANTS[facts["platform"], args.dtype],
            lambda variant: Side(Theirs, folder, size, variant=variant, **given),
            measured,
        )
    return facts | {"seconds_a_batch": statistics.median(own)}, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--batch", type=int, help="clips; the size's own when left out")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=9.0)
    args = parser.parse_args(arguments)
    require_torch()
    size = sizes(args.size)
    rows = args.batch or size.rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_models(folder, size, vae=True)
        difference = check(folder, size, args, rows=1 if args.size == "full" else rows)
        print(f"the same video in float32: pixels differ by at most {difference:.2g}", flush=True)
        ours, theirs = measure(folder, size, args, rows=rows)
    worked = [row for row in theirs if "failed" not in row and row["finite"]]
    if not worked:
        sys.exit("torch could not make a video in any of the settings")
    for row in (ours, *worked):
        row["seconds_a_clip"] = row["seconds_a_batch"] / rows
        row["frames_a_second"] = rows * size.frames / row["seconds_a_batch"]
    facts = {
        "size": args.size,
        "clips": rows,
        "frames": size.frames,
        "pixels": size.side * 2 ** (len(size.vae["block_out_channels"]) - 1),
        "steps": args.steps,
        "guidance": args.guidance,
        "dtype": args.dtype,
        "rounds": args.rounds,
        "largest_difference": difference,
        "not_counted": [row for row in theirs if row not in worked],
    }
    columns = {
        "frames a second": lambda row: f"{row['frames_a_second']:.4g}",
        "s a clip": lambda row: f"{row['seconds_a_clip']:.4g}",
    }
    conclude(facts, ours, worked, seconds="seconds_a_batch", columns=columns, path=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
