"""The training step of stage 2 in glfa_jax and in torch (diffusers), side by side.

    python -m benchmarks.train_step --size small --json benchmarks/results/train_step_cpu.json
    python -m benchmarks.train_step --size full --device-batch 8 --dtype bfloat16   # on a GPU

One step on a UNet3D: noise added to latents, prediction, mean squared error, gradients of
the paper's trainable set (attn1, attn2, temp_conv; the rest is frozen), clipping by the global
norm, AdamW; layers computed anew in the backward pass unless --no-remat. The condition comes from a
linear map of random tokens that trains too, in place of the fMRI encoder: its gradient must pass
through the UNet as in stage 2, and its own cost is negligible on both sides. Latents, noise
and timesteps are given, the same on both sides, rather than drawn within the step.

Ours is the step of `glfa_jax.training.loop` as it is in a run. Theirs is diffusers'
UNet3DConditionModel with the same weights, fused AdamW and, since diffusers has no gradient
checkpointing for this model, torch's own around the very layers that we recompute. It is measured
in several settings (`VARIANTS`); the fastest counts.

First, in float32 at highest precision, both make three steps: losses, gradients and updates must
agree to `AGREEMENT`. Then our process takes turns with one of theirs at a time. A time is the
median over rounds. MFU: operations of the step without recomputation, as XLA counts them before it
optimises, the same for both, over time and peak. Memory: the device's peak; on a CPU parameters,
optimizer and batch, and what resident memory grows by, at most, within one step.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
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

TRAINED = r"attn1|attn2|temp_conv"
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


def make_batch(size: Size, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    width = size.unet["cross_attention_dim"]
    shape = (rows, size.frames, size.side, size.side, CHANNELS)
    return {
        "clean": rng.standard_normal(shape, np.float32),
        "noise": rng.standard_normal(shape, np.float32),
        "t": rng.integers(0, 1000, rows).astype(np.int32),
        "tokens": rng.standard_normal((rows, size.tokens, width), np.float32),
    }


def make_map(size: Size) -> np.ndarray:
    """From tokens to the condition."""
    width = size.unet["cross_attention_dim"]
    return np.random.default_rng(2).standard_normal((width, width), np.float32) / width**0.5


class Ours(InJax):
    """glfa_jax; the step as `training.loop.train` compiles it."""

    def __init__(
        self, folder: Path, size: Size, *, rows: int, dtype: str, remat: bool, exact: bool
    ):
        import jax
        import jax.numpy as jnp

        from glfa_jax import config
        from glfa_jax.convert import pretrained
        from glfa_jax.diffusion.schedule import Schedule
        from glfa_jax.files import read_object
        from glfa_jax.training.optim import OTHERWISE, Group, merge, optimizer, split
        from glfa_jax.training.sharding import make_mesh, place_batch, place_params, replicated
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
        schedule = Schedule.from_config(read_object(SCHEDULE))
        groups = (
            Group(r"^condition/", 1.0),
            Group(rf"^unet/.*({TRAINED})", 1.0),
            Group(OTHERWISE, None),
        )
        unet, variables = pretrained.load(
            "unet3d", folder / "unet", compute_dtype=jnp.dtype(dtype), remat=remat
        )
        params = {"unet": variables["params"], "condition": {"kernel": make_map(size)}}
        params["condition"]["bias"] = np.zeros(len(make_map(size)), np.float32)
        parts = split(params, groups=groups)
        self.before = parts.trainable if exact else None

        def loss_of(unet: Any) -> Any:
            def loss_fn(params: dict, frozen: Any, batch: Any, key: Any) -> tuple[Any, dict]:
                whole = merge(params, frozen)
                own = whole["condition"]
                condition = batch["tokens"] @ own["kernel"] + own["bias"]
                noisy = schedule.add_noise(batch["clean"], noise=batch["noise"], t=batch["t"])
                found: Any = unet.apply({"params": whole["unet"]}, noisy, batch["t"], condition)
                target = schedule.target(batch["clean"], noise=batch["noise"], t=batch["t"])
                return jnp.square(found - target).mean(), {}

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
            parts.frozen, mesh, copy=False, from_bytes=hardware.shard_from_bytes, dtype=dtype
        )
        batch = place_batch(make_batch(size, rows), mesh)
        root = jax.device_put(jax.random.key(0), replicated(mesh))
        self._rest = (frozen, batch, root)

        def lowered(unet: Any) -> Any:
            step = jitted_step(loss_of(unet), optim, abstract, mesh, accumulate=1)
            return step.lower(self._state, *self._rest)

        ready = lowered(unet)
        plain = lowered(unet.clone(remat=False)) if remat else ready
        counted: Any = plain.cost_analysis()
        self._operations = float(counted["flops"])
        start = time.perf_counter()
        self._step = ready.compile(compiler_options=compiler_options(mesh, hardware))
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
        from glfa_jax.convert.mapping import export_params
        from glfa_jax.convert.unet3d import TABLE

        losses = [self.run(1)[1] for _ in range(steps)]
        tree_map = self._jax.tree.map
        changes = tree_map(lambda x, y: np.asarray(x) - y, self._state.params, self.before)
        moments = tree_map(np.asarray, self._state.opt_state[1].mu)
        for name, tree in (("update", changes), ("moment", moments)):
            found = {key: np.asarray(x) for key, x in export_params(tree["unet"], TABLE).items()}
            found["condition"] = tree["condition"]["kernel"].T
            np.savez(self._folder / f"ours-{name}.npz", **found)
        return losses


class Theirs(InTorch):
    """diffusers' UNet3DConditionModel; `variant`: words joined by "+", as in VARIANTS."""

    def __init__(
        self, folder: Path, size: Size, *, rows: int, dtype: str, remat: bool, variant: str
    ):
        import diffusers
        import torch

        super().__init__(variant)
        words, device = self._words, self._device
        exact, self._folder = "exact" in words, folder
        # Not train(): diffusers would drop out in the temporal convolutions, and we do not.
        unet = diffusers.UNet3DConditionModel.from_pretrained(
            folder / "unet", low_cpu_mem_usage=False
        ).eval()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(re.search(TRAINED, name) is not None)
        half = torch.float16 if "float16" in words else torch.bfloat16
        if "frozen-half" in words:
            for parameter in unet.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(half)
        unet = unet.to(device)
        if "channels-last" in words:
            channels_last(unet)
        if remat:
            _checkpoint_layers(unet)
        self._named = {n: p for n, p in unet.named_parameters() if p.requires_grad}
        width = size.unet["cross_attention_dim"]
        condition = torch.nn.Linear(width, width).to(device)
        with torch.no_grad():
            condition.weight.copy_(torch.from_numpy(make_map(size).T))
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
        scheduler = diffusers.DDIMScheduler.from_config(
            diffusers.DDIMScheduler.load_config(SCHEDULE)
        )
        batch = make_batch(size, rows)
        given = {name: torch.from_numpy(channels_first(batch[name])) for name in ("clean", "noise")}
        given |= {
            "t": torch.from_numpy(batch["t"]).long(),
            "tokens": torch.from_numpy(batch["tokens"]),
        }
        given = {name: x.to(device) for name, x in given.items()}
        self._held = (*unet.parameters(), *condition.parameters(), *given.values())
        called = torch.compile(unet) if "compile" in words else unet

        def loss_fn() -> Any:
            context = nullcontext() if dtype == "float32" else torch.autocast(device, half)
            with context:
                noisy = scheduler.add_noise(given["clean"], given["noise"], given["t"])
                found = called(noisy, given["t"], condition(given["tokens"])).sample
            return torch.nn.functional.mse_loss(found.float(), given["noise"])

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


def _checkpoint_layers(unet: Any) -> None:
    """Of these very layers our `remat` recomputes the inside."""
    from diffusers.models import resnet
    from diffusers.models.transformers import transformer_2d, transformer_temporal
    from torch.utils.checkpoint import checkpoint

    kinds = (
        resnet.ResnetBlock2D,
        resnet.TemporalConvLayer,
        transformer_2d.Transformer2DModel,
        transformer_temporal.TransformerTemporalModel,
    )
    for module in unet.modules():
        if isinstance(module, kinds):
            module.forward = partial(
                checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False
            )


def check(folder: Path, size: Size, *, rows: int, remat: bool) -> dict[str, float]:
    """Relative differences of the first steps in float32; ends the program where they are large."""
    given = {"rows": rows, "dtype": "float32", "remat": remat}
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
    given = {"rows": rows, "dtype": args.dtype, "remat": args.remat}
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
            needed, times = theirs("memory"), []
            for _ in range(args.rounds):
                own.append(ours("run", steps=args.steps)[0])
                times.append(theirs("run", steps=args.steps)[0])
            row = {"seconds_a_step": statistics.median(times), "memory_bytes": needed}
            return row | {"first_call_seconds": begin}

        found = by_variant(
            args.variants or VARIANTS[facts["platform"], args.dtype],
            lambda variant: Side(Theirs, folder, size, variant=variant, **given),
            measured,
        )
    result = {"seconds_a_step": statistics.median(own), "memory_bytes": memory}
    return facts | result | {"first_call_seconds": seconds}, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--device-batch", type=int, help="clips; the size's own when left out")
    parser.add_argument("--no-remat", dest="remat", action="store_false")
    parser.add_argument("--steps", type=int, default=3, help="of one turn")
    args = parser.parse_args(arguments)
    require_torch()
    size = sizes(args.size)
    rows = args.device_batch or size.rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_models(folder, size, vae=False)
        # At full size one clip: in float32 it takes twice the memory.
        checked = 1 if args.size == "full" else rows
        differences = check(folder, size, rows=checked, remat=args.remat)
        print(f"the same steps in float32: they differ by {differences}", flush=True)
        ours, theirs = measure(folder, size, args, rows=rows)
    worked = [row for row in theirs if "failed" not in row]
    if not worked:
        sys.exit("torch could not make a step in any of the settings")
    peak = ours.pop("peak_operations")
    for row in (ours, *worked):
        row["mfu"] = peak and ours["operations"] / row["seconds_a_step"] / peak
    facts = {
        "size": args.size,
        "clips": rows,
        "frames": size.frames,
        "latent": size.side,
        "dtype": args.dtype,
        "remat": args.remat,
        "rounds": args.rounds,
        "steps_a_turn": args.steps,
        "differences": differences,
        "not_counted": [row for row in theirs if row not in worked],
    }
    columns = {
        "s a step": lambda row: f"{row['seconds_a_step']:.4g}",
        "MFU": lambda row: "" if row["mfu"] is None else f"{row['mfu']:.1%}",
    }
    conclude(facts, ours, worked, seconds="seconds_a_step", columns=columns, path=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
