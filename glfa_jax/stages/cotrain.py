"""Stage 2: trains fMRI encoder, GLFA layer and video generator together (SPEC §3).

    python -m train.cotrain --config configs/demo.yaml

Prepares the data and runs earlier stages first where they are missing, but for those that
`without` leaves out: with `without: [contrast]` it starts from the pretrained autoencoder's encoder
and fresh conditioning. `cotrain.encoder_from` and `cotrain.generator_from` name weights trained
elsewhere to start from; with `cotrain.steps: 0` they are stored as they are, to be decoded with.
With `method: lea`, fits that regression (`stages.lea`) in place of stages 1 and 2; with
`lea.cotrain_generator` besides, the generator trains here on what the regression makes of the
training windows. It was fitted to these very windows, and fits them better than others, as the
encoder of stage 1 does its own: both methods meet stage 2 with conditions of that kind.
With `--plan` nothing is trained: says what each stage will hold on a device and on the disk; with
`--compile-only v5e:4x4`, what a step of this one needs on that TPU slice.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax import alignments, config, system
from glfa_jax.alignments.encoder import OF_SUBJECT
from glfa_jax.batch import Batch
from glfa_jax.cli import next_step, run_main
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import read_config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.generators import Generator
from glfa_jax.method import loss_scales
from glfa_jax.models import lora
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.lea import Lea
from glfa_jax.models.quantised import KERNELS, quantised
from glfa_jax.models.stacked import stacked
from glfa_jax.ops.local_conv import bounding_box
from glfa_jax.stages import common_space, contrast, latents, lea, pretrain
from glfa_jax.stages.compiling import Step, batch_shapes, compile_stage, say_plan, shape
from glfa_jax.stages.running import (
    batches,
    begun,
    complete,
    compute_in,
    from_folder,
    needed_stages,
    run_stage,
    store_model,
    take_as_given,
)
from glfa_jax.trained.data import FOLDER
from glfa_jax.trained.run import kept_of
from glfa_jax.training.loop import LossFn
from glfa_jax.training.losses import alignment_loss
from glfa_jax.training.optim import OTHERWISE, Group, Split, merge, split
from glfa_jax.training.processes import is_main, say, together
from glfa_jax.training.sharding import put_back, set_apart

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
    return encoder_group(but=_fitted_beforehand(settings)), *denoiser


def encoder_group(*, but: Sequence[str]) -> Group:
    """What trains of the encoder, by paths such as `encoder/logit_scale`.

    but: patterns of what stays besides, at the begin of the path within the encoder.
    """
    fixed = "|".join(("fmri2clip", "logit_scale", *but))
    return Group(rf"^encoder/(?!{fixed})(?!.*pos_embed$)", 1.0)


def _fitted_beforehand(settings: config.Config) -> list[str]:
    """Patterns of the alignment's parameters that this stage leaves as they are."""
    method = alignments.configured(settings).beforehand
    if method is None:
        return []
    side = settings.data.map_size
    names = method.shapes((side, side))
    return [rf"func_align_layers_\d+/{name}(/|$)" for name in names]


def build_encoder(settings: config.Config, store: Store) -> tuple[FmriEncoder | Lea, dict]:
    """The encoder of stage 1 with a fresh alignment, or one a subject, in front; one that is given
    in place of it may have its own; or LEA's regression."""
    if settings.method == "lea":
        folder = system.model_folder(settings, lea.NAME)
        fitted = pretrained.load("lea", folder, stored=True)
        return fitted.module, fitted.variables["params"]
    first = encoder_of_stage_one(settings)
    module = system.fmri_encoder(
        settings,
        clip_dim=first.module.clip_dim,
        tokens=first.module.tokens,
        token_dim=first.module.token_dim,
        dropout=settings.cotrain.dropout,
        aligned=True,
        box=bounding_box(store.mask),
    )
    volume = jnp.zeros((max(module.subjects, 1), 1, module.height, module.width))
    fresh = jax.jit(lambda key: module.init(key, volume, method="align"))(
        jax.random.key(settings.seed)
    )
    params = fresh.get("params", {}) | first.variables["params"]
    if first.module.aligned:
        return module, params
    if common_space.needed(settings):
        layers = common_space.layers(settings, store).values()
        for i, layer in enumerate(layers):
            params[name] = params[name := OF_SUBJECT.format(i)] | layer.params
    return module, params


def encoder_of_stage_one(settings: config.Config) -> Pretrained:
    """What stage 1 left, or without it what it would start from; or what is given in its place."""
    if settings.cotrain.encoder_from is not None:
        return alignments.load_encoder(settings.cotrain.encoder_from)
    if contrast.NAME not in settings.without:
        folder = system.model_folder(settings, contrast.NAME)
        return pretrained.load("fmri_encoder", folder, stored=True)
    place = settings.foundation / system.CLIP
    clip, _ = pretrained.described("clip", read_config(place), place=place)
    module = system.fmri_encoder(
        settings,
        clip_dim=clip.projection_dim,
        **system.condition_of(settings, system.generator(settings)),
        dropout=settings.cotrain.dropout,
        aligned=False,
    )
    return Pretrained(module, {"params": contrast.init_params(settings, module)})


def full(
    settings: config.Cotrain,
    generator: Generator,
    params: dict,
    fixed: dict,
    *,
    beside: bool = False,
) -> tuple[dict, dict]:
    """Encoder and denoiser parameters, the LoRA updates merged in, or beside the kernels."""
    whole = merge(params, put_back(fixed))
    denoiser = whole[generator.part]
    if "lora" in whole:
        add = lora.beside if beside else lora.merge
        denoiser = add(denoiser, whole["lora"], scale=settings.lora.scale)
    return whole["encoder"], denoiser


def kept(settings: config.Cotrain, generator: Generator, parts: Split) -> dict:
    """Frozen parameters as the step reads them: those that keep their type whatever
    `hardware.frozen_dtype` is apart, equal blocks stacked and their kernels rounded if asked."""
    frozen, part, exact = parts.frozen, generator.part, generator.exact
    chosen = generator.trainable[settings.trainable]
    # Else updates are added to kernels one by one.
    if part in frozen and (chosen.beside or not chosen.low_rank):
        trained = parts.trainable.get(part)
        of_blocks = stacked(frozen[part], lists=generator.equal, trained=trained)
        if settings.frozen_kernels is not None:
            of_blocks = quantised(of_blocks, kind=settings.frozen_kernels)
            exact = (*exact, KERNELS)  # their scales
        frozen = frozen | {part: of_blocks}
    return set_apart(frozen, [f"^{part}/.*({pattern})" for pattern in exact])


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
        beside = generator.trainable[settings.trainable].beside
        encoder_params, denoiser = full(settings, generator, params, frozen["fixed"], beside=beside)
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
        dropping = {}
        if settings.temporal_dropout:
            dropping = {"dropout": jax.random.fold_in(key, 4)}
        prediction = generator.denoise(denoiser, noisy, t, condition, **dropping)
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


def step_of(settings: config.Config) -> Step:
    """The step of this stage, from configurations alone; no weights, no data are read."""
    if settings.method == "lea":
        raise InputError("method: lea cannot be compiled ahead of its regression, must be glfa")
    options = compute_in(settings)
    generator = system.check_generator(settings).computing(**options)
    codec = generator.codec_shapes()
    clip: Any = pretrained.configured("clip", settings.foundation / system.CLIP)
    module = system.fmri_encoder(
        settings,
        clip_dim=clip.projection_dim,
        **system.condition_of(settings, generator),
        dropout=settings.cotrain.dropout,
        aligned=True,
    ).clone(**options)
    parts = jax.eval_shape(
        partial(parameters, settings, generator),
        encoder=pretrained.parameter_shapes("fmri_encoder", module),
        denoiser=generator.denoiser_shapes(),
    )

    data, side = settings.data, settings.data.map_size
    encoding = jax.eval_shape(generator.encode, codec, shape(1, data.frames, *data.resolution, 3))
    return Step(
        params=parts.trainable,
        frozen={
            "fixed": kept(settings.cotrain, generator, parts),
            "codec": None if data.latents else codec,
            "mask": shape(side, side),
        },
        batch=batch_shapes(
            settings,
            NAME,
            tokens=clip.text_model.max_position_embeddings,
            latents=encoding.shape[1:] if data.latents else None,
        ),
        loss_fn=loss_of(settings.cotrain, module, generator),
        groups=groups(settings, generator),
    )


def compile_only(settings: config.Config, topology: str, report: Path | None) -> None:
    """Compiles the step of this stage, and says what it needs."""
    compile_stage(settings, NAME, topology, report, step_of(settings))


def plan(settings: config.Config) -> None:
    """Says what each stage that is to be run holds, before anything is read."""
    known = {pretrain.NAME: pretrain.step_of, contrast.NAME: contrast.step_of, NAME: step_of}
    trained = [name for name in needed_stages(settings) if name in known]
    say_plan(settings, {name: known[name](settings) for name in trained})


def _says(settings: config.Config) -> str:
    """What this stage trains, and from where."""
    generator = from_folder(settings, NAME, "generator_from")
    if settings.method == "lea":
        return f"stage 2, the video generator{generator} on conditions of the regression"
    encoder = from_folder(settings, NAME, "encoder_from")
    return (
        f"stage 2, fMRI encoder{encoder}, alignment and video generator{generator} together; "
        f"{loss_scales(settings.cotrain)}"
    )


def run(settings: config.Config, store: Store) -> None:
    if complete(settings, NAME):
        return
    generator, stage = system.generator(settings), settings.cotrain
    denoiser, codec = generator.load(stage.generator_from), generator.load_codec()
    if settings.data.latents:
        if is_main():
            latents.run(store, generator, codec)
        together("latents are kept")
    if contrast.NAME in settings.without:
        pretrain.run(settings, store)
    (lea if settings.method == "lea" else contrast).run(settings, store)
    module, encoder_params = build_encoder(settings, store)
    parts = parameters(settings, generator, encoder=encoder_params, denoiser=denoiser)

    if stage.steps:
        trained = run_stage(
            settings,
            NAME,
            says=_says(settings),
            init=parts.trainable,
            frozen={
                "fixed": kept(stage, generator, parts),
                "codec": None if settings.data.latents else codec,
                "mask": jnp.asarray(store.mask, jnp.float32),
            },
            loss_fn=loss_of(
                stage, computing(settings, module), generator.computing(**compute_in(settings))
            ),
            groups=groups(settings, generator),
            batches=batches(settings, store, NAME, augment=None, latents=settings.data.latents),
        )
    else:
        trained = parts.trainable
        take_as_given(settings, NAME)
    encoder_params, denoiser = full(stage, generator, trained, parts.frozen)

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
        plan=plan,
    )
