"""Stage 2: trains fMRI encoder, GLFA layer and video generator together (SPEC §3).

    python -m train.cotrain --config configs/demo.yaml

Prepares the data and runs earlier stages first where they are missing, but for those that
`without` leaves out: with `without: [contrast]` it starts from the pretrained autoencoder's encoder
and fresh conditioning. With `method: lea`, which has no stage 1 and 2, fits that (`train.lea`).
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
from glfa_jax.diffusion.schedule import Schedule, noise_like
from glfa_jax.errors import InputError
from glfa_jax.files import write_atomically
from glfa_jax.models import lora
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.unet3d import UNet3D
from glfa_jax.models.vae import AutoencoderKL, Posterior
from glfa_jax.ops.local_conv import bounding_box
from glfa_jax.stages import contrast, latents, lea, pretrain
from glfa_jax.stages.running import batches, begun, complete, compute_in, run_stage, store_model
from glfa_jax.subject_alignment import with_training_subjects
from glfa_jax.training.compile_only import compile_step
from glfa_jax.training.loop import LossFn
from glfa_jax.training.losses import alignment_loss
from glfa_jax.training.optim import OTHERWISE, Group, merge, split
from glfa_jax.training.processes import is_main, say, together

NAME = "cotrain"


def groups(settings: config.Config) -> tuple[Group, ...]:
    """Encoder, GLFA and conditioning train; of the UNet the attention and temporal convolutions.

    The contrastive head is not part of this stage's loss, and with LoRA the UNet itself stays.
    """
    fixed = "" if alignments.configured(settings).trainable else "|func_align"
    trained = (Group(rf"^encoder/(?!fmri2clip|logit_scale{fixed})(?!.*pos_embed$)", 1.0),)
    if settings.cotrain.trainable == "lora":
        return (*trained, Group(r"^lora/", 1.0), Group(OTHERWISE, None))
    return (*trained, Group(r"^unet/.*(attn1|attn2|temp_conv)", 1.0), Group(OTHERWISE, None))


def build_encoder(settings: config.Config, store: Store) -> tuple[FmriEncoder, dict]:
    """The encoder of stage 1 with a fresh alignment, or one a subject, in front."""
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
        tokens=clip.text_model.max_position_embeddings,
        dropout=settings.cotrain.dropout,
        aligned=False,
    )
    return Pretrained(module, {"params": contrast.init_params(settings, module)})


def full(settings: config.Cotrain, params: dict, fixed: dict) -> tuple[dict, dict]:
    """Encoder and UNet parameters, the LoRA updates merged in."""
    whole = merge(params, fixed)
    if "lora" in whole:
        scale = settings.lora.scale
        return whole["encoder"], lora.merge(whole["unet"], whole["lora"], scale=scale)
    return whole["encoder"], whole["unet"]


def loss_of(
    settings: config.Cotrain,
    module: FmriEncoder,
    unet: UNet3D,
    vae: AutoencoderKL,
    schedule: Schedule,
) -> LossFn:
    """Diffusion loss of every window's clip plus the alignment losses.

    Frozen: `fixed` parameters, the cortex `mask`, and `vae`, needed where batches hold no latents.
    """

    def loss_fn(params: dict, frozen: Any, batch: Batch, key: jax.Array):
        encoder_key, vae_key, noise_key, time_key = jax.random.split(key, 4)
        encoder_params, unet_params = full(settings, params, frozen["fixed"])
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
            posterior: Any = vae.apply(frozen["vae"], video, method="encode")
        else:
            kept = batch.latents.reshape(rows * shown, *batch.latents.shape[2:])
            posterior = Posterior(*jnp.split(kept, 2, axis=-1))
        clean = vae.to_diffusion(posterior.sample(vae_key))
        clean = jnp.repeat(clean, subjects // shown, axis=0)
        condition = encoded.condition.reshape(rows * subjects, *encoded.condition.shape[2:])
        noise = noise_like(noise_key, clean, offset_strength=settings.offset_noise)
        t = jax.random.randint(time_key, (len(clean),), 0, schedule.num_train_timesteps)
        noisy = schedule.add_noise(clean, noise=noise, t=t)
        prediction: Any = unet.apply({"params": unet_params}, noisy, t, condition)
        diffusion = jnp.square(prediction - schedule.target(clean, noise=noise, t=t)).mean()

        loss = diffusion + settings.glfa_scale * (
            settings.regularisation_scale * glfa.regularisation
            + settings.alignment_scale * glfa.alignment
        )
        return loss, {"diffusion": diffusion, **glfa._asdict()}

    return loss_fn


def with_lora(settings: config.Config, params: dict) -> dict:
    """Adds the LoRA updates of the UNet where they are what trains."""
    if settings.cotrain.trainable != "lora":
        return params
    updates = lora.init_lora(
        params["unet"],
        patterns=lora.UNET3D_PATTERNS,
        rank=settings.cotrain.lora.rank,
        key=jax.random.key(settings.seed),
    )
    return params | {"lora": updates}


def compile_only(settings: config.Config, topology: str, report: Path | None) -> None:
    """Compiles the step of this stage from configurations alone; no weights, no data are read."""
    if settings.method == "lea":
        raise InputError("method: lea has no steps to compile, must be glfa")
    folder = settings.foundation / "text-to-video"
    options = compute_in(settings)

    def model(kind: str, place: Path, **options: Any) -> tuple[Any, dict]:
        return pretrained.described(kind, read_config(place), place=place, **options)

    unet, unet_params = model("unet3d", folder / "unet", **options)
    vae, vae_params = model("vae", folder / "vae", dtype=options["dtype"])
    text, _ = model("clip_text", folder / "text_encoder")
    clip, _ = model("clip", settings.foundation / system.CLIP)
    module = system.fmri_encoder(
        settings,
        clip_dim=clip.projection_dim,
        tokens=text.max_position_embeddings,
        dropout=settings.cotrain.dropout,
        aligned=True,
    ).clone(**options)
    encoder_params = pretrained.parameter_shapes("fmri_encoder", module)
    params = {"encoder": encoder_params, "unet": unet_params}
    parts = split(jax.eval_shape(partial(with_lora, settings), params), groups=groups(settings))

    data, stage = settings.data, settings.cotrain
    shape: Any = jax.ShapeDtypeStruct
    subjects, side = len(settings.protocol.train_subjects), settings.data.map_size
    rows = stage.batch_size // subjects  # a row holds a window of every subject
    shown = 1 if stage.paired_fraction == 1 else subjects
    factor = 2 ** (len(vae.block_out_channels) - 1)
    small = (size // factor for size in data.resolution)
    frames = (rows, shown, data.frames)
    batch = Batch(
        fmri=shape((rows, subjects, data.window, side, side), jnp.float32),
        video=shape((*frames[:2], 0 if data.latents else data.frames, *data.resolution, 3), "f4"),
        tokens=shape((rows, shown, text.max_position_embeddings), jnp.int32),
        clip=shape((rows, shown), jnp.int32),
        paired=shape((rows,), jnp.bool_),
        latents=shape((*frames, *small, 2 * vae.latent_channels), "f4") if data.latents else None,
    )
    found = compile_step(
        topology,
        stage=stage,
        hardware=settings.hardware,
        params=parts.trainable,
        frozen={
            "fixed": parts.frozen,
            "vae": None if data.latents else {"params": vae_params},
            "mask": shape((side, side), jnp.float32),
        },
        batch=batch,
        loss_fn=loss_of(stage, module, unet, vae, pretrained.read_schedule(folder)),
        groups=groups(settings),
    )
    print(found, flush=True)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(report, json.dumps(found.as_json(), indent=2) + "\n")


def run(settings: config.Config, store: Store) -> None:
    if complete(settings, NAME):
        return
    generator = system.load_generator(settings)
    if settings.data.latents:
        if is_main():
            latents.run(settings, store, generator.vae)
        together("latents are kept")
    if contrast.NAME in settings.without:
        pretrain.run(settings, store)
    contrast.run(settings, store)
    module, encoder_params = build_encoder(settings, store)
    options = compute_in(settings)
    unet = generator.unet.module.clone(**options)
    vae = generator.vae.module.clone(dtype=options["dtype"])
    schedule = generator.schedule
    if settings.cotrain.zero_terminal_snr:
        schedule = schedule.rescale_zero_terminal_snr()

    params = {"encoder": encoder_params, "unet": generator.unet.variables["params"]}
    parts = split(with_lora(settings, params), groups=groups(settings))

    trained = run_stage(
        settings,
        NAME,
        says="stage 2, fMRI encoder, alignment and video generator together",
        init=parts.trainable,
        frozen={
            "fixed": parts.frozen,
            "vae": None if settings.data.latents else generator.vae.variables,
            "mask": jnp.asarray(store.mask, jnp.float32),
        },
        loss_fn=loss_of(settings.cotrain, module.clone(**options), unet, vae, schedule),
        groups=groups(settings),
        batches=batches(settings, store, NAME, augment=None, latents=settings.data.latents),
    )
    encoder_params, unet_params = jax.device_get(full(settings.cotrain, trained, parts.frozen))
    architecture = read_config(settings.foundation / "text-to-video" / "unet")

    def write(folder):
        alignments.save_encoder(folder / "encoder", module, encoder_params)
        pretrained.save("unet3d", folder / "unet", unet_params, config=architecture)

    store_model(settings, NAME, write)


def main(settings: config.Config) -> None:
    with begun(settings) as store:
        if settings.method == "lea":
            lea.run(settings, store)
        else:
            run(settings, store)
    say(next_step("eval.sample", "--config", settings.run_dir / "config.yaml"))


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(
        main,
        arguments,
        command="train.cotrain",
        description=__doc__,
        compile_only=compile_only,
    )
