"""Fine-tunes the fMRI autoencoder (fMRI-PTE) on training volumes (SPEC §2.1, §3).

    python -m train.pretrain --config configs/demo.yaml

It starts from the imported autoencoder in `pretrain.start_from`; without one from random weights,
which is the paper's ablation "w/o pretraining". The encoder sees the training split only: of the
training subjects (protocol `strict`) or of all subjects (`published`). With `--compile-only
v5e:2x2` nothing is trained: says what a step needs on that TPU slice.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.convert import pretrained
from glfa_jax.data import pipeline
from glfa_jax.data.store import Store
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.stages.common_space import in_common_space
from glfa_jax.stages.compiling import Step, compile_stage, shape
from glfa_jax.stages.running import (
    begun,
    complete,
    compute_in,
    from_folder,
    run_stage,
    share,
    store_model,
)
from glfa_jax.training.loop import LossFn
from glfa_jax.training.losses import reconstruction_loss
from glfa_jax.training.optim import OTHERWISE, Group, merge, split

NAME = "pretrain"
# Position tables are fixed.
GROUPS = (Group(r"pos_embed$", None), Group(OTHERWISE, 1.0))


def subjects(settings: config.Config) -> tuple[str, ...]:
    """Whose training volumes the encoder may see under the protocol."""
    if settings.protocol.pretraining == "strict":
        return settings.protocol.train_subjects
    return settings.data.subjects


def loss_of(module: FmriAutoencoder) -> LossFn:
    """Mean over maps of `reconstruction_loss`. Frozen: `fixed` parameters, the cortex `mask`."""

    def loss_fn(params: dict, frozen: Any, batch: Any, key: jax.Array):
        variables = {"params": merge(params, frozen["fixed"])}
        fmri = batch["fmri"].astype(jnp.float32)
        out: Any = module.apply(variables, fmri, deterministic=False, rngs={"dropout": key})
        return reconstruction_loss(out.image, fmri, frozen["mask"]).mean(), {}

    return loss_fn


def step_of(settings: config.Config) -> Step:
    """The step of this stage, from the configuration alone; no data are read."""
    module = system.autoencoder(settings).clone(**compute_in(settings))
    parts = jax.eval_shape(
        partial(split, groups=GROUPS), pretrained.parameter_shapes("fmri_autoencoder", module)
    )
    side = settings.data.map_size
    return Step(
        params=parts.trainable,
        frozen={"fixed": parts.frozen, "mask": shape(side, side)},
        batch={"fmri": shape(settings.pretrain.batch_size, side, side)},
        loss_fn=loss_of(module),
        groups=GROUPS,
    )


def compile_only(settings: config.Config, topology: str, report: Path | None) -> None:
    """Compiles the step of this stage, and says what it needs."""
    compile_stage(settings, NAME, topology, report, step_of(settings))


def init_params(settings: config.Config, module: FmriAutoencoder) -> dict:
    """Those of `pretrain.start_from`, or random ones."""
    if settings.pretrain.start_from is not None:
        there = settings.pretrain.start_from
        return pretrained.load("fmri_autoencoder", there, stored=True).variables["params"]
    volume = jnp.zeros((1, settings.data.map_size, settings.data.map_size))
    return jax.jit(module.init)(jax.random.key(settings.seed), volume)["params"]


def run(settings: config.Config, store: Store) -> None:
    if complete(settings, NAME):
        return
    module = system.autoencoder(settings)
    params = init_params(settings, module)
    parts = split(params, groups=GROUPS)
    stream = pipeline.volumes(
        in_common_space(settings, store),
        subjects=subjects(settings),
        batch_size=settings.pretrain.batch_size,
        seed=settings.seed,
        **share(settings),
    )

    trained = run_stage(
        settings,
        NAME,
        says=f"the autoencoder, on training volumes of subjects {', '.join(subjects(settings))} "
        f"(protocol {settings.protocol.pretraining})"
        + (
            from_folder(settings, NAME, "start_from")
            or ", from random weights, as in the paper's ablation without pretraining"
        ),
        init=parts.trainable,
        frozen={"fixed": parts.frozen, "mask": jnp.asarray(store.mask, jnp.float32)},
        loss_fn=loss_of(module.clone(**compute_in(settings))),
        groups=GROUPS,
        batches=stream,
    )
    params = jax.device_get(merge(trained, parts.frozen))
    store_model(
        settings,
        NAME,
        lambda folder: system.save_own("fmri_autoencoder", folder, module, params),
    )


def main(settings: config.Config) -> None:
    with begun(settings) as store:
        run(settings, store)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(
        main,
        arguments,
        command="train.pretrain",
        description=__doc__,
        compile_only=compile_only,
    )
