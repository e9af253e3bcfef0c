"""Five steps of every stage at a tiny size, on any mesh and by any number of processes.

As a program: python -m tests.stages.tiny OUT INDEX/COUNT@HOST:PORT STAGE-DATA,FSDP,FRAME... on the
devices of COUNT processes (0/1 for one); writes OUT/STAGE-DATA,FSDP,FRAME-COUNT.npz with what was
logged of every step and the parameters after the last.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from benchmarks import models
from glfa_jax import config
from glfa_jax.batch import Batch
from glfa_jax.convert import pretrained
from glfa_jax.diffusion.schedule import MODELSCOPE
from glfa_jax.generators.unet3d import UNet3DGenerator
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.stages import contrast, cotrain, pretrain
from glfa_jax.system import EvaluationModel
from glfa_jax.training import processes
from glfa_jax.training.logs import read_log
from glfa_jax.training.loop import train
from glfa_jax.training.losses import reconstruction_loss
from glfa_jax.training.optim import merge, split
from glfa_jax.training.processes import is_main
from glfa_jax.training.sharding import make_mesh, process_share, to_host

STEPS, ROWS, SUBJECTS, WINDOW, SIDE, FRAMES, TOKENS = 5, 8, 2, 2, 16, 2, 6
# Adam divides gradients by their own size, and by its epsilon where that is larger. Some have none,
# such as those of biases of keys, which softmax does not see: of these only rounding is left, and
# would be blown up to a full step. So all are scaled down until rounding lies far below epsilon.
OPTIONS = {"steps": STEPS, "batch_size": ROWS, "learning_rate": 1e-2, "clip_norm": 1e-4}
TIMES = {"step_seconds", "data_wait_seconds", "device_teraflops_per_second", "mfu"}
WIDTH = 8
UNET = models.small_unet(WIDTH, groups=4, head=4, condition=WIDTH) | {
    "down_block_types": ["CrossAttnDownBlock3D"]
}


# Nothing at zero, so that every gradient is far above rounding.
random_params = partial(models.random_params, std=0.3)


def model(kind: str, settings: dict) -> tuple[Any, dict]:
    module = pretrained.build(kind, settings)
    return module, random_params(pretrained.parameter_shapes(kind, module))


class Batches:
    """Random batches that depend on the position only; this process's rows of them."""

    def __init__(self, make: Callable[[np.random.Generator], Any], share: tuple[int, int]):
        self.next_index, self._make, (self._part, self._parts) = 0, make, share

    def __next__(self) -> Any:
        whole = self._make(np.random.default_rng(self.next_index))
        self.next_index += 1
        size = ROWS // self._parts
        return jax.tree.map(lambda x: x[self._part * size : (self._part + 1) * size], whole)

    def get_state(self) -> dict[str, int]:
        return {"next_index": self.next_index}

    def set_state(self, state: dict[str, int]) -> None:
        self.next_index = state["next_index"]


def maps(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"fmri": rng.standard_normal((ROWS, SIDE, SIDE), np.float32)}


def clips(rng: np.random.Generator) -> Batch:
    return Batch(
        fmri=rng.standard_normal((ROWS, SUBJECTS, WINDOW, SIDE, SIDE), np.float32),
        video=rng.uniform(-1, 1, (ROWS, 1, FRAMES, 8, 8, 3)).astype(np.float32),
        tokens=rng.integers(19, size=(ROWS, 1, TOKENS)).astype(np.int32),
        clip=np.arange(ROWS, dtype=np.int32)[:, None],
        paired=np.ones(ROWS, bool),
    )


def clips_as_latents(rng: np.random.Generator) -> Batch:
    """A clip of its own for every subject in every other row."""
    latents = rng.standard_normal((ROWS, SUBJECTS, FRAMES, 4, 4, 8), np.float32)
    numbers = np.arange(ROWS * SUBJECTS, dtype=np.int32).reshape(ROWS, SUBJECTS)
    paired = np.arange(ROWS) % 2 == 0
    latents[paired, 1], numbers[paired, 1] = latents[paired, 0], numbers[paired, 0]
    batch = clips(rng)
    video = np.zeros((ROWS, SUBJECTS, 0, 8, 8, 3), np.float32)
    return batch._replace(latents=latents, video=video, clip=numbers, paired=paired)


def encoder(*, aligned: bool) -> tuple[FmriEncoder, dict]:
    module = FmriEncoder(
        SIDE,
        SIDE,
        window=WINDOW,
        tokens=TOKENS,
        clip_dim=6,
        patch_size=8,
        dim=WIDTH,
        depth=1,
        num_heads=2,
        hidden_tokens=4,
        conditioning_heads=2,
        kernel_size=3,
        global_part=aligned,
        local_part=aligned,
        dropout=0.1,
    )
    return module, random_params(pretrained.parameter_shapes("fmri_encoder", module))


def pretraining(side: int = SIDE, *, dropout: float = 0.1) -> dict[str, Any]:
    module = FmriAutoencoder(
        side,
        side,
        patch_size=8,
        dim=WIDTH,
        depth=1,
        decoder_depth=1,
        num_heads=2,
        latent=8,
        dropout=dropout,
    )
    parts = split(
        random_params(pretrained.parameter_shapes("fmri_autoencoder", module)),
        groups=pretrain.GROUPS,
    )

    def loss(params: dict, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        variables = {"params": merge(params, frozen)}
        out: Any = module.apply(
            variables, batch["fmri"], deterministic=False, rngs={"dropout": key}
        )
        return reconstruction_loss(out.image, batch["fmri"]).mean(), {}

    return {
        "init": parts.trainable,
        "frozen": parts.frozen,
        "loss_fn": loss,
        "groups": pretrain.GROUPS,
        "make": maps,
    }


def stage_one() -> dict[str, Any]:
    module, params = encoder(aligned=False)
    clip, clip_params = model("clip", models.TINY["clip"])
    parts = split(params, groups=contrast.groups(config.Contrast()))
    judge: Any = EvaluationModel(pretrained.Pretrained(clip, {}), lambda frames: frames)
    return {
        "init": parts.trainable,
        "frozen": {"fixed": parts.frozen, "clip": {"params": clip_params}, "text": None},
        "loss_fn": contrast.loss_of(config.Contrast(), module, judge, None),
        "groups": contrast.groups(config.Contrast()),
        "make": clips,
    }


def stage_two() -> dict[str, Any]:
    module, params = encoder(aligned=True)
    unet, unet_params = model("unet3d", UNET)
    vae: Any = pretrained.build("vae", models.TINY["vae"])  # its factor alone: latents are kept
    generator = UNet3DGenerator(Path(), unet, vae, MODELSCOPE)
    chosen = {"cotrain": config.Cotrain(), "alignment": config.Alignment(), "aligned": True}
    chosen |= {"encoder": config.Encoder(), "method": "glfa"}
    settings: Any = SimpleNamespace(**chosen)
    groups = cotrain.groups(settings, generator)
    parts = split({"encoder": params, "unet": unet_params}, groups=groups)
    return {
        "init": parts.trainable,
        "frozen": {"fixed": parts.frozen, "codec": None, "mask": np.ones((SIDE, SIDE), np.float32)},
        "loss_fn": cotrain.loss_of(config.Cotrain(), module, generator),
        "groups": groups,
        "make": clips_as_latents,
    }


STAGES = {"pretrain": pretraining, "contrast": stage_one, "cotrain": stage_two}


def run(
    name: str,
    folder: Path,
    *,
    hardware: config.Hardware,
    given: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Losses and all else that is logged of every step; parameters after the last by their paths.

    In every process but the first, the parameters alone. `given`: in place of what `STAGES` makes.
    """
    given = dict(given or STAGES[name]())
    make = given.pop("make")
    state = train(
        name=name,
        folder=folder,
        stage=config.Stage(**(OPTIONS | {"log_every": 1} | options)),
        seed=1,
        batches=Batches(make, process_share(make_mesh(hardware.mesh))),
        fingerprint={},
        hardware=hardware,
        **given,
    )
    params = flatten_dict(to_host(state.params), sep="/")
    if not is_main():
        return params
    lines = [line["metrics"] for line in read_log(folder)]
    logged = {key: np.array([x[key] for x in lines]) for key in lines[0].keys() - TIMES}
    return {f"log {key}": values for key, values in logged.items()} | params


def place_of(place: str) -> config.Processes:
    """INDEX/COUNT@HOST:PORT, or 0/1."""
    which, _, coordinator = place.partition("@")
    index, count = map(int, which.split("/"))
    if count == 1:
        return config.Processes()
    return config.Processes(found="given", coordinator=coordinator, count=count, index=index)


def mesh_of(sizes: str) -> config.MeshSize:
    data, fsdp, frame = map(int, sizes.split(","))
    return config.MeshSize(data=data, fsdp=fsdp, frame=frame)


def main(out: str, place: str, *runs: str) -> None:
    processes.start(place_of(place))
    for each in runs:
        name, _, sizes = each.partition("-")
        hardware = config.Hardware(mesh=mesh_of(sizes), shard_from_bytes=0)
        folder = Path(out) / f"{each}-{jax.process_count()}"
        found = run(name, folder, hardware=hardware)
        if is_main():
            np.savez(folder.with_name(f"{folder.name}.npz"), **found)
        jax.clear_caches()  # a program of every run would stay in memory


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main(*sys.argv[1:])
