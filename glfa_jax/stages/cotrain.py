"""Stage 2: trains fMRI encoder, GLFA layer and video generator together (SPEC §3).

    python -m train.cotrain --config configs/demo.yaml

Prepares the data and runs earlier stages first where they are missing, but for those that
`without` leaves out: with `without: [contrast]` it starts from the pretrained autoencoder's encoder
and fresh conditioning. With `method: lea`, fits that regression (`stages.lea`) in place of stages 1
and 2; with `lea.cotrain_generator` besides, the generator trains here on what the regression makes
of the training windows. It was fitted to these very windows, and fits them better than others, as
the encoder of stage 1 does its own: both methods meet stage 2 with conditions of that kind.
With `--compile-only v5e:4x4` nothing is trained: says what a step needs on that TPU slice.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax import alignments, config, system
from glfa_jax.batch import Batch
from glfa_jax.cli import next_step, run_main
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import read_config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.files import write_atomically
from glfa_jax.generators import Generator
from glfa_jax.models import lora
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.lea import Lea
from glfa_jax.ops.local_conv import bounding_box
from glfa_jax.stages import contrast, latents, lea, pretrain
from glfa_jax.stages.running import batches, begun, complete, compute_in, run_stage, store_model
from glfa_jax.subject_alignment import with_training_subjects
from glfa_jax.trained.data import FOLDER
from glfa_jax.trained.run import kept_of
from glfa_jax.training.compile_only import compile_step
from glfa_jax.training.loop import LossFn
from glfa_jax.training.losses import alignment_loss
from glfa_jax.training.optim import OTHERWISE, Group, Split, merge, split
from glfa_jax.training.processes import is_main, say, together

NAME = "cotrain"


def groups(settings: config.Config, generator: Generator) -> tuple[Group, ...]:
    """Encoder, GLFA and conditioning train, and what `trainable` says of the generator.

    The contrastive head is not part of this stage's loss; with LoRA the denoiser itself stays. A
    regression in place of the encoder stays as well.
    """
    chosen = generator.trainable[settings.cotrain.trainable]
    anywhere = rf"^{generator.part}/.*({'|'.join(chosen.patterns)})"
    denoiser = Group("^lora/" if chosen.low_rank else anywhere, 1.0), Group(OTHERWISE, None)
    if settings.method == "lea":
        return denoiser
    fixed = "" if alignments.configured(settings).trainable else "|func_align"
    encoder = Group(rf"^encoder/(?!fmri2clip|logit_scale{fixed})(?!.*pos_embed$)", 1.0)
    return encoder, *denoiser


def build_encoder(settings: config.Config, store: Store) -> tuple[FmriEncoder | Lea, dict]:
    """The encoder of stage 1 with a fresh alignment, or one a subject, in front; or LEA's
    regression."""
    if settings.method == "lea":
        fitted = pretrained.load("lea", system.model_folder(settings, lea.NAME))
        return fitted.module, fitted.variables["params"]
    first = encoder_of_stage_one(settings)
    module = system.fmri_encoder(
        settings,
        clip_dim=first.module.clip_dim,
        tokens=first.module.tokens,
        dropout=settings.cotrain.dropout,
        aligned=True,
        box=bounding_box(store.mask),
    )
    volume = jnp.zeros((max(module.subjects, 1), 1, module.height, module.width))
    fresh = jax.jit(lambda key: module.init(key, volume, method="align"))(
        jax.random.key(settings.seed)
    )
    params = fresh.get("params", {}) | first.variables["params"]
    return module, with_training_subjects(settings, module, params, store=store)


def encoder_of_stage_one(settings: config.Config) -> Pretrained:
    """What stage 1 left, or without it what it would start from."""
    if contrast.NAME not in settings.without:
        return pretrained.load("fmri_encoder", system.model_folder(settings, contrast.NAME))
    place = settings.foundation / system.CLIP
    clip, _ = pretrained.described("clip", read_config(place), place=place)
    module = system.fmri_encoder(
        settings,
        clip_dim=clip.projection_dim,
        tokens=system.generator(settings).condition_tokens,
        dropout=settings.cotrain.dropout,
        aligned=False,
    )
    return Pretrained(module, {"params": contrast.init_params(settings, module)})


def full(
    settings: config.Cotrain, generator: Generator, params: dict, fixed: dict
) -> tuple[dict, dict]:
    """Encoder and denoiser parameters, the LoRA updates merged in."""
    whole = merge(params, fixed)
    denoiser = whole[generator.part]
    if "lora" in whole:
        denoiser = lora.merge(denoiser, whole["lora"], scale=settings.lora.scale)
    return whole["encoder"], denoiser


def computing(settings: config.Config, module: FmriEncoder | Lea) -> FmriEncoder | Lea:
    """The same as it computes in training. A regression has no gradient to save memory for."""
    options = compute_in(settings)
    return (
        module.clone(dtype=options["dtype"]) if isinstance(module, Lea) else module.clone(**options)
    )


def loss_of(settings: config.Cotrain, module: FmriEncoder | Lea, generator: Generator) -> LossFn:
    """The generator's loss on every window's clip plus the alignment losses (SPEC §3).

    Mean of (denoise(noisy, t, condition) − target(clean, noise, t))², the condition being the
    encoding of the window, plus `glfa_scale` times the weighted losses of `alignment_loss`.

    Frozen: `fixed` parameters, the cortex `mask`, and the `codec`'s parameters, needed where
    batches hold no latents.
    """

    def loss_fn(params: dict, frozen: Any, batch: Batch, key: jax.Array):
        encoder_key, draw_key, noise_key, time_key = jax.random.split(key, 4)
        encoder_params, denoiser = full(settings, generator, params, frozen["fixed"])
        fmri = batch.fmri.astype(jnp.float32)
        encoded: Any = module.apply(
            {"params": encoder_params}, fmri, deterministic=False, rngs={"dropout": encoder_key}
        )
        rows, subjects = fmri.shape[:2]
        shown = batch.clip.shape[1]  # clips a row: 1, or one a subject
        glfa = alignment_loss(
            fmri, encoded.aligned, frozen["mask"], paired=None if shown == 1 else batch.paired
        )

        # Every subject's window is one sample of the generator, with noise of its own.
        if batch.latents is None:
            video = batch.video.reshape(rows * shown, *batch.video.shape[2:])
            encoding = generator.encode(frozen["codec"], video)
        else:
            encoding = batch.latents.reshape(rows * shown, *batch.latents.shape[2:])
        clean = generator.draw(encoding, draw_key)
        clean = jnp.repeat(clean, subjects // shown, axis=0)
        condition = encoded.condition.reshape(rows * subjects, *encoded.condition.shape[2:])
        noise = generator.noise(noise_key, clean)
        t = generator.times(time_key, len(clean))
        noisy = generator.add_noise(clean, noise=noise, t=t)
        prediction = generator.denoise(denoiser, noisy, t, condition)
        diffusion = jnp.square(prediction - generator.target(clean, noise=noise, t=t)).mean()

        loss = diffusion + settings.glfa_scale * (
            settings.regularisation_scale * glfa.regularisation
            + settings.alignment_scale * glfa.alignment
        )
        return loss, {"diffusion": diffusion, **glfa._asdict()}

    return loss_fn


def parameters(
    settings: config.Config, generator: Generator, *, encoder: dict, denoiser: dict
) -> Split:
    """All parameters of the stage, LoRA updates among them where they are what trains."""
    params, stage = {"encoder": encoder, generator.part: denoiser}, settings.cotrain
    chosen = generator.trainable[stage.trainable]
    if chosen.low_rank:
        key = jax.random.key(settings.seed)
        params["lora"] = lora.init_lora(
            denoiser, patterns=chosen.patterns, rank=stage.lora.rank, key=key
        )
    return split(params, groups=groups(settings, generator))


def compile_only(settings: config.Config, topology: str, report: Path | None) -> None:
    """Compiles the step of this stage from configurations alone; no weights, no data are read."""
    if settings.method == "lea":
        raise InputError("method: lea cannot be compiled ahead of its regression, must be glfa")
    options = compute_in(settings)
    generator = system.check_generator(settings).computing(**options)
    codec = generator.codec_shapes()
    clip: Any = pretrained.configured("clip", settings.foundation / system.CLIP)
    module = system.fmri_encoder(
        settings,
        clip_dim=clip.projection_dim,
        tokens=generator.condition_tokens,
        dropout=settings.cotrain.dropout,
        aligned=True,
    ).clone(**options)
    parts = jax.eval_shape(
        partial(parameters, settings, generator),
        encoder=pretrained.parameter_shapes("fmri_encoder", module),
        denoiser=generator.denoiser_shapes(),
    )

    data, stage = settings.data, settings.cotrain
    shape: Any = jax.ShapeDtypeStruct
    subjects, side = len(settings.protocol.train_subjects), settings.data.map_size
    rows = stage.batch_size // subjects  # a row holds a window of every subject
    shown = 1 if stage.paired_fraction == 1 else subjects
    video = shape((1, data.frames, *data.resolution, 3), jnp.float32)
    encoding = jax.eval_shape(generator.encode, codec, video)
    batch = Batch(
        fmri=shape((rows, subjects, data.window, side, side), jnp.float32),
        video=shape((rows, shown, 0 if data.latents else data.frames, *video.shape[2:]), "f4"),
        tokens=shape((rows, shown, generator.condition_tokens), jnp.int32),
        clip=shape((rows, shown), jnp.int32),
        paired=shape((rows,), jnp.bool_),
        latents=shape((rows, shown, *encoding.shape[1:]), "f4") if data.latents else None,
    )
    found = compile_step(
        topology,
        stage=stage,
        hardware=settings.hardware,
        params=parts.trainable,
        frozen={
            "fixed": parts.frozen,
            "codec": None if data.latents else codec,
            "mask": shape((side, side), jnp.float32),
        },
        batch=batch,
        loss_fn=loss_of(stage, module, generator),
        groups=groups(settings, generator),
    )
    print(found, flush=True)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(report, json.dumps(found.as_json(), indent=2) + "\n")


def run(settings: config.Config, store: Store) -> None:
    if complete(settings, NAME):
        return
    generator, stage = system.generator(settings), settings.cotrain
    denoiser, codec = generator.load(), generator.load_codec()
    if settings.data.latents:
        if is_main():
            latents.run(store, generator, codec)
        together("latents are kept")
    if contrast.NAME in settings.without:
        pretrain.run(settings, store)
    (lea if settings.method == "lea" else contrast).run(settings, store)
    module, encoder_params = build_encoder(settings, store)
    parts = parameters(settings, generator, encoder=encoder_params, denoiser=denoiser)

    trained = run_stage(
        settings,
        NAME,
        says="stage 2, the video generator on conditions of the regression"
        if settings.method == "lea"
        else "stage 2, fMRI encoder, alignment and video generator together",
        init=parts.trainable,
        frozen={
            "fixed": parts.frozen,
            "codec": None if settings.data.latents else codec,
            "mask": jnp.asarray(store.mask, jnp.float32),
        },
        loss_fn=loss_of(
            stage, computing(settings, module), generator.computing(**compute_in(settings))
        ),
        groups=groups(settings, generator),
        batches=batches(settings, store, NAME, augment=None, latents=settings.data.latents),
    )
    encoder_params, denoiser = jax.device_get(full(stage, generator, trained, parts.frozen))

    def write(folder: Path) -> None:
        if isinstance(module, FmriEncoder):  # else it is kept where it was fitted
            alignments.save_encoder(folder / "encoder", module, encoder_params)
        generator.save(denoiser, folder)
        trained = Pretrained(module, {"params": encoder_params})
        kept_of(settings, trained, store=store).save(folder / FOLDER)

    store_model(settings, NAME, write)


def main(settings: config.Config) -> None:
    with begun(settings) as store:
        if settings.cotrains:
            run(settings, store)
        else:
            lea.run(settings, store)
    say(next_step("eval.sample", "--config", settings.run_dir / "config.yaml"))


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(
        main,
        arguments,
        command="train.cotrain",
        description=__doc__,
        compile_only=compile_only,
    )
