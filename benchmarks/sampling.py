"""Guided sampling in glfa_jax and in torch (diffusers), side by side.

    python -m benchmarks.sampling --size small --json RESULT.json
    python -m benchmarks.sampling --generator wan --json RESULT.json
    python -m benchmarks.sampling --size full --batch 16 --dtype bfloat16   # on a GPU

From noise and conditions to pixels, as `eval.sample` does it after the fMRI encoder: DPM-Solver++
(2M), or UniPC with Wan, with classifier-free guidance, two conditions a step, then the VAE's
decoder. Ours is one compiled program of the generator's. Theirs is diffusers' classes
(`benchmarks/in_torch.py`) with the same weights, in inference mode, in several settings
(`VARIANTS`); the fastest counts.

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

from benchmarks.pipelines import (
    Sampling,
    Size,
    make_batch,
    opened,
    sampled,
    size_of,
    write_pipeline,
)
from benchmarks.side_by_side import (
    InJax,
    InTorch,
    Side,
    by_variant,
    bytes_of,
    channels_first,
    channels_last,
    conclude,
    in_turns,
    options,
    require_torch,
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


def usual(args: argparse.Namespace) -> Sampling:
    """How the generator is usually sampled from, but for what the command says."""
    asked = {name: getattr(args, name) for name in ("steps", "guidance")}
    given = {name: value for name, value in asked.items() if value is not None}
    return sampled(args.generator)._replace(**given)


def inputs_of(
    folder: Path, args: argparse.Namespace, size: Size, *, rows: int
) -> dict[str, np.ndarray]:
    batch = make_batch(opened(args.generator, folder), size, rows)
    return {name: batch[name] for name in ("noise", "tokens", "negative")}


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

        from glfa_jax.diffusion.guidance import guided
        from glfa_jax.training.cpu_libraries import compiler_options

        super().__init__(exact=exact)
        kind, options = jnp.dtype(dtype), usual(args)
        generator = opened(args.generator, folder).computing(dtype=kind)
        parts = {"denoiser": generator.load(), "codec": generator.load_codec()}
        models = jax.device_put(jax.tree.map(lambda x: np.asarray(x).astype(kind), parts))

        @jax.jit
        def generate(models: dict, given: dict, scale: Any) -> Any:
            denoise = guided(
                lambda x, t, c: generator.denoise(models["denoiser"], x, t, c),
                condition=given["tokens"],
                negative=given["negative"],
                scale=scale,
            )
            steps, method = options.steps, options.method
            latents = generator.sample(denoise, given["noise"], steps=steps, method=method)
            return jnp.clip(generator.decode(models["codec"], latents), -1, 1)

        inputs = jax.device_put(inputs_of(folder, args, size, rows=rows))
        given = (models, inputs, jnp.float32(options.guidance))
        self._held = bytes_of(jax.tree.leaves(given))
        start = time.perf_counter()
        libraries = compiler_options(jax.default_backend())
        compiled = generate.lower(*given).compile(compiler_options=libraries)
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
        import torch

        from benchmarks.in_torch import PIPELINES

        super().__init__(variant)
        words, device = self._words, self._device
        kind = torch.float16 if "float16" in words else getattr(torch, dtype)
        theirs = PIPELINES[args.generator](folder)
        theirs.cast(kind)
        for model in (theirs.denoiser, theirs.codec):
            model.to(device)
            if "channels-last" in words:
                channels_last(model)
        if "compile" in words:
            theirs.compile()
        inputs = inputs_of(folder, args, size, rows=rows)
        inputs["noise"] = channels_first(inputs["noise"])
        given = {name: torch.from_numpy(x).to(device, kind) for name, x in inputs.items()}
        held = (*theirs.denoiser.parameters(), *theirs.codec.parameters(), *given.values())
        self._held = bytes_of(held)
        options = usual(args)

        @torch.inference_mode()
        def generate() -> Any:
            latents = theirs.sample(
                *(given[name] for name in ("noise", "tokens", "negative")),
                steps=options.steps,
                guidance=options.guidance,
            )
            return theirs.decode(latents)

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
            needed = theirs("memory")
            turns, found = in_turns(lambda: ours("run"), lambda: theirs("run"), rounds=args.rounds)
            own.extend(turns)
            found |= {"memory_bytes": needed, "first_call_seconds": begin}
            return found | {"finite": finite}

        found = by_variant(
            args.variants or VARIANTS[facts["platform"], args.dtype],
            lambda variant: Side(Theirs, folder, size, variant=variant, **given),
            measured,
        )
    return facts | {"seconds": statistics.median(own)}, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--batch", type=int, help="clips; the size's own when left out")
    parser.add_argument("--steps", type=int, help="the generator's usual ones when left out")
    parser.add_argument("--guidance", type=float, help="likewise")
    args = parser.parse_args(arguments)
    require_torch()
    size = size_of(args.generator, args.size)
    rows = args.batch or size.rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pipeline(folder, args.generator, size)
        difference = check(folder, size, args, rows=1 if args.size == "full" else rows)
        print(f"the same video in float32: pixels differ by at most {difference:.2g}", flush=True)
        ours, theirs = measure(folder, size, args, rows=rows)
    worked = [row for row in theirs if "failed" not in row and row["finite"]]
    if not worked:
        sys.exit("torch could not make a video in any of the settings")
    for row in (ours, *worked):
        row["seconds_a_clip"] = row["seconds"] / rows
        row["frames_a_second"] = rows * size.frames / row["seconds"]
    facts = {
        "generator": args.generator,
        "size": args.size,
        "clips": rows,
        "frames": size.frames,
        "pixels": size.pixels,
        "tokens": size.tokens,
        **usual(args)._asdict(),
        "dtype": args.dtype,
        "rounds": args.rounds,
        "largest_difference": difference,
        "not_counted": [row for row in theirs if row not in worked],
    }
    columns = {
        "frames a second": lambda row: f"{row['frames_a_second']:.4g}",
        "s a clip": lambda row: f"{row['seconds_a_clip']:.4g}",
    }
    conclude(facts, ours, worked, columns=columns, path=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
