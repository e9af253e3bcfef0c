"""The training step of stage 2 in glfa_jax and in torch (diffusers), side by side.

    python -m benchmarks.train_step --json RESULT.json
    python -m benchmarks.train_step --generator wan --json RESULT.json
    python -m benchmarks.train_step --size full --device-batch 8 --dtype bfloat16   # on a GPU

One step: noise added to latents, prediction, mean squared error, gradients of what trains, clipping
by the global norm, AdamW; layers computed anew in the backward pass unless --no-remat. Of a UNet3D
trains the paper's set (attn1, attn2, temp_conv; the rest is frozen), of Wan low-rank updates. The
condition comes from a linear map of random tokens that trains too, in place of the fMRI encoder:
its gradient must pass through the generator as in stage 2, and its own cost is negligible on both
sides. Latents, noise and times are given, the same on both sides, not drawn within the step.

Ours is the step of `glfa_jax.training.loop` as it is in a run. Theirs is diffusers' class
(`benchmarks/in_torch.py`) with the same weights, fused AdamW, low-rank updates as PEFT computes
them and torch's gradient checkpointing around the very layers that we recompute. It is measured in
several settings (`VARIANTS`); the fastest counts.

First, in float32 at highest precision, both make three steps: losses, gradients and updates must
agree to `AGREEMENT`. Then our process takes turns with one of theirs at a time. A time is the
median over rounds. MFU: matrix products and convolutions of our step without recomputation, the
same number for both, over time and peak. Memory: the device's peak; on a CPU parameters,
optimizer and batch, and what resident memory grows by, at most, within one step.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.operations import operations
from benchmarks.pipelines import (
    RANK,
    Size,
    make_batch,
    opened,
    size_of,
    trained,
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
from glfa_jax.generators import Generator
from glfa_jax.ops import attention

UPDATE, SCALE = "update.npz", 1.0
GIVEN = ("clean", "noise", "t", "tokens")
LEARNING_RATE, DECAY, BETAS, CLIP = 3e-5, 0.01, (0.9, 0.999), 1.0
CHECKED_STEPS = 3
# Relative: of the loss; of the first moment and of the update in their norms over all that trains.
# An update is almost the sign of a gradient, so the few that are rounding alone turn it round.
AGREEMENT = {"loss": 1e-4, "moment": 1e-3, "update": 2e-2}
ROUGHLY = {"float32": 1e-3, "bfloat16": 0.03}  # of the first loss in the settings that are timed
VARIANTS = {
    ("cpu", "float32"): ("eager", "channels-last", "compile"),
    ("cpu", "bfloat16"): ("eager", "frozen-half", "channels-last+frozen-half"),
    ("gpu", "float32"): ("eager", "channels-last", "compile"),
    ("gpu", "bfloat16"): (
        "eager",
        "frozen-half",
        "channels-last+frozen-half",
        "float16+frozen-half",
        "compile+frozen-half",
        "compile+channels-last+frozen-half",
    ),
}


def write_update(folder: Path, generator: Generator) -> None:
    """Low-rank updates as PEFT names them, where these are what trains. They are not zero, so that
    all of them have gradients."""
    from glfa_jax.convert.lora import Lora, export_lora
    from glfa_jax.models.lora import init_lora

    chosen = generator.trainable[trained(generator.name)]
    if not chosen.low_rank:
        return
    shapes, rng = generator.denoiser_shapes(), np.random.default_rng(3)
    made = init_lora(shapes, patterns=chosen.patterns, rank=RANK, key=jax.random.key(3))
    drawn = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32) * x.size**-0.5, made)
    np.savez(folder / UPDATE, **export_lora(Lora(drawn, SCALE, generator.name), prefix=""))


def make_map(width: int) -> np.ndarray:
    """From tokens to the condition."""
    return np.random.default_rng(2).standard_normal((width, width), np.float32) / width**0.5


class Ours(InJax):
    """glfa_jax; the step as `training.loop.train` compiles it."""

    def __init__(
        self,
        folder: Path,
        size: Size,
        *,
        generator: str,
        rows: int,
        dtype: str,
        remat: bool,
        exact: bool,
    ):
        import jax
        import jax.numpy as jnp

        from glfa_jax import config
        from glfa_jax.convert.lora import import_lora
        from glfa_jax.convert.pretrained import in_memory
        from glfa_jax.models import lora
        from glfa_jax.stages import cotrain
        from glfa_jax.training.optim import OTHERWISE, Group, merge, optimizer, split
        from glfa_jax.training.sharding import (
            make_mesh,
            place_batch,
            place_params,
            put_back,
            replicated,
        )
        from glfa_jax.training.state import TrainState
        from glfa_jax.training.step import abstract_state, compiler_options, jitted_step

        super().__init__(exact=exact)
        self._folder = folder
        hardware = config.Hardware(compute_dtype=dtype, frozen_dtype=dtype, remat=remat)
        stage = config.Cotrain(
            batch_size=rows,
            learning_rate=LEARNING_RATE,
            weight_decay=DECAY,
            betas=BETAS,
            clip_norm=CLIP,
        )
        self._made = made = opened(generator, folder)
        kernel, chosen = make_map(made.condition_width), made.trainable[trained(generator)]
        params: dict[str, Any] = {made.part: in_memory(made.load())}
        params["condition"] = {"kernel": kernel, "bias": np.zeros(len(kernel), np.float32)}
        pattern = rf"^{made.part}/.*({'|'.join(chosen.patterns)})"
        if chosen.low_rank:
            pattern = "^lora/"
            with np.load(folder / UPDATE) as update:
                params["lora"] = import_lora(
                    dict(update), params=made.denoiser_shapes(), kind=generator
                ).tree
        groups = (Group(r"^condition/", 1.0), Group(pattern, 1.0), Group(OTHERWISE, None))
        parts = split(params, groups=groups)
        self.before = jax.tree.map(np.asarray, parts.trainable) if exact else None

        def loss_of(remat: bool) -> Any:
            computing = made.computing(dtype=jnp.dtype(dtype), remat=remat)

            def loss_fn(params: dict, frozen: Any, batch: Any, key: Any) -> tuple[Any, dict]:
                whole = merge(params, put_back(frozen))
                own, denoiser = whole["condition"], whole[made.part]
                if "lora" in whole:
                    denoiser = lora.beside(denoiser, whole["lora"], scale=SCALE)
                condition = batch["tokens"] @ own["kernel"] + own["bias"]
                clean, noise, t = (batch[name] for name in ("clean", "noise", "t"))
                noisy = computing.add_noise(clean, noise=noise, t=t)
                found = computing.denoise(denoiser, noisy, t, condition)
                return jnp.square(found - computing.target(clean, noise=noise, t=t)).mean(), {}

            return loss_fn

        mesh = make_mesh(hardware.mesh)
        shapes = jax.eval_shape(lambda tree: tree, parts.trainable)
        optim = optimizer(stage, trainable=shapes, groups=groups)
        abstract = abstract_state(shapes, optim, mesh, hardware)
        where = jax.tree.map(lambda x: x.sharding, abstract)
        trainable = jax.tree.map(jax.device_put, parts.trainable, where.params)
        moments = jax.jit(optim.init, out_shardings=where.opt_state)(trainable)
        self._state = TrainState(jax.device_put(jnp.int32(0), where.step), trainable, moments)
        frozen = place_params(
            cotrain.kept(stage, made, parts),
            mesh,
            copy=False,
            from_bytes=hardware.shard_from_bytes,
            dtype=dtype,
        )
        batch = make_batch(made, size, rows)
        batch = place_batch({name: batch[name] for name in GIVEN}, mesh)
        root = jax.device_put(jax.random.key(0), replicated(mesh))
        self._rest = (frozen, batch, root)

        def traced(remat: bool) -> Any:
            step = jitted_step(loss_of(remat), optim, abstract, mesh, accumulate=1)
            return step.trace(self._state, *self._rest)

        with attention.using("einsum"):  # whose operations can be told
            self._operations = operations(traced(remat=False).jaxpr)
        program = traced(remat)
        libraries, ready = compiler_options(mesh, hardware, program.jaxpr), program.lower()
        start = time.perf_counter()
        self._step = ready.compile(compiler_options=libraries)
        self._compiled = time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        from glfa_jax.training import speed

        best = speed.limits(self._jax.devices()[0])
        return {
            "platform": self._jax.default_backend(),
            "compile_seconds": self._compiled,
            "operations": self._operations,
            "peak_operations": best and best.operations,
        }

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds a step, and the last loss."""
        start = time.perf_counter()
        for _ in range(steps):
            self._state, metrics = self._step(self._state, *self._rest)
        loss = float(metrics["loss"])
        self._jax.block_until_ready(self._state)
        return (time.perf_counter() - start) / steps, loss

    def memory(self) -> int:
        held = bytes_of(self._jax.tree.leaves((self._state, *self._rest[:2])))
        return self._memory.of(lambda: self.run(1), held=held)

    def check(self, steps: int) -> list[float]:
        """Losses of the first steps; updates and first moments go into the folder."""
        losses = [self.run(1)[1] for _ in range(steps)]
        tree_map = self._jax.tree.map
        changes = tree_map(lambda x, y: np.asarray(x) - y, self._state.params, self.before)
        moments = tree_map(np.asarray, self._state.opt_state[1].mu)
        for name, tree in (("update", changes), ("moment", moments)):
            found = self._in_torchs_names(tree)
            found["condition"] = tree["condition"]["kernel"].T
            np.savez(self._folder / f"ours-{name}.npz", **found)
        return losses

    def _in_torchs_names(self, tree: dict) -> dict[str, np.ndarray]:
        from glfa_jax.convert.adapted import ADAPTED
        from glfa_jax.convert.lora import Lora, export_lora
        from glfa_jax.convert.mapping import export_params

        if "lora" in tree:
            return export_lora(Lora(tree["lora"], SCALE, self._made.name), prefix="")
        named = export_params(tree[self._made.part], ADAPTED[self._made.name].table)
        return {key: np.asarray(x) for key, x in named.items()}


class Theirs(InTorch):
    """diffusers; `variant`: words joined by "+", as in VARIANTS."""

    def __init__(
        self,
        folder: Path,
        size: Size,
        *,
        generator: str,
        rows: int,
        dtype: str,
        remat: bool,
        variant: str,
    ):
        import torch

        from benchmarks.in_torch import PIPELINES, train_beside, train_only

        super().__init__(variant)
        words, device = self._words, self._device
        exact, self._folder = "exact" in words, folder
        theirs, made = PIPELINES[generator](folder), opened(generator, folder)
        chosen = made.trainable[trained(generator)]
        denoiser = theirs.denoiser.to(device)
        if chosen.low_rank:
            with np.load(folder / UPDATE) as update:
                given = {name: torch.from_numpy(x).to(device) for name, x in update.items()}
            self._named = train_beside(denoiser, given, scale=SCALE)
        else:
            self._named = train_only(denoiser, "|".join(chosen.patterns))
        half = torch.float16 if "float16" in words else torch.bfloat16
        if "frozen-half" in words:
            theirs.cast(half, frozen_alone=True)
        if "channels-last" in words:
            channels_last(denoiser)
        if remat:
            theirs.recompute()
        if "compile" in words:
            theirs.compile()
        kernel = make_map(made.condition_width)
        condition = torch.nn.Linear(*kernel.shape).to(device)
        with torch.no_grad():
            condition.weight.copy_(torch.from_numpy(kernel.T))
            condition.bias.zero_()
        self._named |= {"condition": condition.weight, "condition.bias": condition.bias}
        self._before = (
            {n: p.detach().cpu().clone() for n, p in self._named.items()} if exact else {}
        )
        self._optim = torch.optim.AdamW(
            self._named.values(),
            lr=LEARNING_RATE,
            betas=BETAS,
            eps=1e-8,
            weight_decay=DECAY,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(device) if "float16" in words else None
        batch = make_batch(made, size, rows)
        batch |= {name: channels_first(batch[name]) for name in ("clean", "noise")}
        given = {name: torch.from_numpy(batch[name]).to(device) for name in GIVEN}
        held = (*denoiser.parameters(), *self._named.values(), *given.values())
        self._held = {id(x): x for x in held}.values()  # what trains may lie in the denoiser

        def loss_fn() -> Any:
            context = nullcontext() if dtype == "float32" else torch.autocast(device, half)
            clean, noise, t = (given[name] for name in ("clean", "noise", "t"))
            with context:
                noisy = theirs.noisy(clean, noise=noise, t=t)
                found = theirs.predict(noisy, t, condition(given["tokens"]))
            wanted = theirs.target(clean, noise=noise)
            return torch.nn.functional.mse_loss(found.float(), wanted)

        self._loss_fn = loss_fn

    def facts(self) -> dict[str, Any]:
        return {}

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds a step, and the last loss."""
        start = time.perf_counter()
        for _ in range(steps):
            loss = self._step()
        value = float(loss)
        self._synchronize()
        return (time.perf_counter() - start) / steps, value

    def _step(self) -> Any:
        self._optim.zero_grad(set_to_none=True)
        loss = self._loss_fn()
        trained, scaler = list(self._named.values()), self._scaler
        if scaler is None:
            loss.backward()
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(self._optim)
        self._torch.nn.utils.clip_grad_norm_(trained, CLIP)
        if scaler is None:
            self._optim.step()
        else:
            scaler.step(self._optim)
            scaler.update()
        return loss.detach()

    def memory(self) -> int:
        self._optim.zero_grad(set_to_none=True)
        self._forget_peak()
        moments = [x for state in self._optim.state.values() for x in state.values()]
        held = bytes_of((*self._held, *moments))
        return self._memory.of(lambda: self.run(1), held=held)

    def check(self, steps: int) -> list[float]:
        losses = [self.run(1)[1] for _ in range(steps)]
        names = [name for name in self._named if name != "condition.bias"]
        changes = {n: (self._named[n].detach().cpu() - self._before[n]).numpy() for n in names}
        moments = {n: self._optim.state[self._named[n]]["exp_avg"].cpu().numpy() for n in names}
        for name, found in (("update", changes), ("moment", moments)):
            np.savez(self._folder / f"theirs-{name}.npz", **found)
        return losses


def check(folder: Path, size: Size, *, generator: str, rows: int, remat: bool) -> dict[str, float]:
    """Relative differences of the first steps in float32; ends the program where they are large."""
    given = {"generator": generator, "rows": rows, "dtype": "float32", "remat": remat}
    losses = {}
    for name, make, more in (
        ("ours", Ours, {"exact": True}),
        ("theirs", Theirs, {"variant": "exact"}),
    ):
        with Side(make, folder, size, **given, **more) as side:
            losses[name] = side("check", steps=CHECKED_STEPS)
    pairs = zip(losses["ours"], losses["theirs"], strict=True)
    differences = {"loss": max(abs(ours - theirs) / theirs for ours, theirs in pairs)}
    for kind in ("moment", "update"):
        with (
            np.load(folder / f"ours-{kind}.npz") as ours,
            np.load(folder / f"theirs-{kind}.npz") as theirs,
        ):
            if set(ours) != set(theirs):
                sys.exit(f"the sides train different parameters: {sorted(set(ours) ^ set(theirs))}")
            apart = sum(float(np.square(ours[name] - theirs[name]).sum()) for name in theirs)
            differences[kind] = (
                apart / sum(float(np.square(x).sum()) for x in theirs.values())
            ) ** 0.5
    worse = {name: x for name, x in differences.items() if not x < AGREEMENT[name]}
    if worse:
        sys.exit(f"the sides do not make the same steps: they differ by {worse}, over {AGREEMENT}")
    return differences


def measure(
    folder: Path, size: Size, args: argparse.Namespace, *, rows: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ours, and theirs by variant."""
    given = {"generator": args.generator, "rows": rows, "dtype": args.dtype, "remat": args.remat}
    own = []
    with Side(Ours, folder, size, exact=False, **given) as ours:
        facts = ours("facts")
        seconds, first = ours("run", steps=1)
        memory = ours("memory")

        def measured(theirs: Side, variant: str) -> dict[str, Any]:
            begin, loss = theirs("run", steps=1)
            if not abs(loss - first) < ROUGHLY[args.dtype] * first:
                sys.exit(f"first losses differ: ours {first}, theirs {loss} ({variant})")
            theirs("run", steps=1)  # what the first could not settle
            needed = theirs("memory")
            turns, found = in_turns(
                lambda: ours("run", steps=args.steps)[0],
                lambda: theirs("run", steps=args.steps)[0],
                rounds=args.rounds,
            )
            own.extend(turns)
            return found | {"memory_bytes": needed, "first_call_seconds": begin}

        found = by_variant(
            args.variants or VARIANTS[facts["platform"], args.dtype],
            lambda variant: Side(Theirs, folder, size, variant=variant, **given),
            measured,
        )
    result = {"seconds": statistics.median(own), "memory_bytes": memory}
    return facts | result | {"first_call_seconds": seconds}, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--device-batch", type=int, help="clips; the size's own when left out")
    parser.add_argument("--no-remat", dest="remat", action="store_false")
    parser.add_argument("--steps", type=int, default=3, help="of one turn")
    args = parser.parse_args(arguments)
    require_torch()
    size = size_of(args.generator, args.size)
    rows = args.device_batch or size.rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pipeline(folder, args.generator, size)
        write_update(folder, opened(args.generator, folder))
        # At full size one clip: in float32 it takes twice the memory.
        checked = 1 if args.size == "full" else rows
        differences = check(folder, size, generator=args.generator, rows=checked, remat=args.remat)
        print(f"the same steps in float32: they differ by {differences}", flush=True)
        ours, theirs = measure(folder, size, args, rows=rows)
    worked = [row for row in theirs if "failed" not in row]
    if not worked:
        sys.exit("torch could not make a step in any of the settings")
    peak = ours.pop("peak_operations")
    for row in (ours, *worked):
        row["mfu"] = peak and ours["operations"] / row["seconds"] / peak
    facts = {
        "generator": args.generator,
        "trained": trained(args.generator),
        "size": args.size,
        "clips": rows,
        "frames": size.frames,
        "pixels": size.pixels,
        "tokens": size.tokens,
        "dtype": args.dtype,
        "remat": args.remat,
        "rounds": args.rounds,
        "steps_a_turn": args.steps,
        "differences": differences,
        "not_counted": [row for row in theirs if row not in worked],
    }
    columns = {
        "s a step": lambda row: f"{row['seconds']:.4g}",
        "MFU": lambda row: "" if row["mfu"] is None else f"{row['mfu']:.1%}",
    }
    conclude(facts, ours, worked, columns=columns, path=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
