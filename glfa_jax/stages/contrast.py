"""Stage 1: aligns fMRI with CLIP's images and texts by contrast (SPEC §3).

    python -m train.contrast --config configs/demo.yaml

Runs without the GLFA layer, from the pretrained autoencoder's encoder; with `without: [pretrain]`
from random weights; with `contrast.start_from` from an fMRI encoder that was trained elsewhere.
With `--compile-only v5e:2x2` nothing is trained: says what a step needs on that TPU slice.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax import alignments, config, system
from glfa_jax.batch import Batch
from glfa_jax.cli import run_main
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data import pipeline
from glfa_jax.data.captions import thesaurus
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.generators import Generator
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.stages import pretrain
from glfa_jax.stages.common_space import in_common_space
from glfa_jax.stages.compiling import Step, batch_shapes, compile_stage, shape
from glfa_jax.stages.running import (
    batches,
    begun,
    complete,
    compute_in,
    from_folder,
    run_stage,
    store_model,
)
from glfa_jax.training.loop import LossFn
from glfa_jax.training.losses import caption_weights, contrastive_loss, token_loss
from glfa_jax.training.optim import OTHERWISE, Group, merge, split

NAME = "contrast"


def groups(settings: config.Contrast) -> tuple[Group, ...]:
    """Everything trains but the positions; the logit scale at a rate of its own, and to a limit.

    The parameter is the scale's logarithm.
    """
    most = settings.logit_scale_max
    return (
        Group(r"pos_embed$", None),
        Group(r"^logit_scale$", settings.logit_scale_rate, most and math.log(most)),
        Group(OTHERWISE, 1.0),
    )


def init_params(settings: config.Config, module: FmriEncoder) -> dict:
    """Random conditioning and head, the encoder of the pretrained autoencoder.

    Without pretraining, that is random as well. With `contrast.start_from` all are of the encoder
    that lies there; its alignment, which this stage trains without, is left out.
    """
    if settings.contrast.start_from is not None:
        there = pretrained.load("fmri_encoder", settings.contrast.start_from, stored=True)
        return alignments.without_alignment(there)
    side = settings.data.map_size
    window = jnp.zeros((1, settings.data.window, side, side))
    params = jax.jit(module.init)(jax.random.key(settings.seed), window)["params"]
    if pretrain.NAME in settings.without:
        return params
    folder = system.model_folder(settings, pretrain.NAME)
    trained = pretrained.load("fmri_autoencoder", folder, stored=True).variables["params"]
    encoder = {name: trained[name] for name in params["fmri_encoder"]["transformer"]}
    return params | {"fmri_encoder": {"transformer": encoder}}


def loss_of(
    settings: config.Contrast,
    module: FmriEncoder,
    clip: system.EvaluationModel,
    text: Pretrained | None,
) -> LossFn:
    """Contrast of every subject's windows with its clips, plus the distance from text's tokens.

    Frozen: `fixed` parameters of the encoder, variables of `clip` and `text`, and with `text` the
    `captions` of all clips, tokenised as they are (those of the batch are reworded), and `weights`
    of their tokens.
    """

    def loss_fn(params: dict, frozen: Any, batch: Batch, key: jax.Array):
        variables = {"params": merge(params, frozen["fixed"])}
        fmri = batch.fmri.astype(jnp.float32)
        encoded: Any = module.apply(variables, fmri, deterministic=False, rngs={"dropout": key})
        shown = batch.clip.shape[1]  # clips a row: 1, or one a subject
        target: Any = clip.model.module.apply(
            frozen["clip"],
            clip.preprocess(batch.video[:, :, 0].reshape(-1, *batch.video.shape[3:])),
            tokens=batch.tokens.reshape(-1, batch.tokens.shape[-1]),
        )
        images, texts = (x.reshape(-1, shown, x.shape[-1]) for x in (target.image, target.text))
        losses = [
            contrastive_loss(
                encoded.embedding[:, subject],
                image=images[:, subject % shown],
                text=texts[:, subject % shown],
                logit_scale=variables["params"]["logit_scale"],
            )
            for subject in range(fmri.shape[1])
        ]
        means: Any = (sum(part) / len(losses) for part in zip(*losses, strict=True))
        image, caption, total = means
        metrics: dict[str, Any] = {"image": image, "text": caption}
        if text is not None:
            captions, weights = (frozen[name][batch.clip] for name in ("captions", "weights"))
            wanted: Any = text.module.apply(
                frozen["text"], captions.reshape(-1, captions.shape[-1])
            )
            metrics["tokens"] = token_loss(
                encoded.condition,
                tokens=wanted.hidden.reshape(-1, shown, *wanted.hidden.shape[1:]),
                weights=weights,
            )
            total += settings.token_scale * metrics["tokens"]
        return total, metrics

    return loss_fn


def build_module(settings: config.Config, generator: Generator, *, clip_dim: int) -> FmriEncoder:
    """The encoder as this stage trains it, without alignment."""
    return system.fmri_encoder(
        settings,
        clip_dim=clip_dim,
        **system.condition_of(settings, generator),
        dropout=settings.contrast.dropout,
        aligned=False,
    )


def step_of(settings: config.Config) -> Step:
    """The step of this stage, from configurations alone; no weights, no data are read."""
    if settings.method == "lea":
        raise InputError("method: lea has no stage 1 to size, must be glfa")
    options = compute_in(settings)
    generator = system.check_generator(settings)
    clip = system.clip_shapes(settings.foundation, compute_dtype=options["dtype"])
    module = build_module(settings, generator, clip_dim=clip.model.module.projection_dim)
    module = module.clone(**options)
    stage_groups = groups(settings.contrast)
    parts = jax.eval_shape(
        partial(split, groups=stage_groups), pretrained.parameter_shapes("fmri_encoder", module)
    )
    text, captions, weights = None, None, None
    if settings.contrast.token_scale:
        text = generator.text_encoder_shapes(compute_dtype=options["dtype"])
        # Of all clips, whose number is the data's: far too small to count.
        some = 1024, system.condition_of(settings, generator)["tokens"]
        captions, weights = shape(*some, dtype=jnp.int32), shape(*some)
    return Step(
        params=parts.trainable,
        frozen={
            "fixed": parts.frozen,
            "clip": clip.model.variables,
            "text": text.variables if text else None,
            "captions": captions,
            "weights": weights,
        },
        batch=batch_shapes(
            settings, NAME, tokens=clip.model.module.text_model.max_position_embeddings
        ),
        loss_fn=loss_of(settings.contrast, module, clip, text),
        groups=stage_groups,
    )


def compile_only(settings: config.Config, topology: str, report: Path | None) -> None:
    """Compiles the step of this stage, and says what it needs."""
    compile_stage(settings, NAME, topology, report, step_of(settings))


def run(settings: config.Config, store: Store) -> None:
    if complete(settings, NAME):
        return
    pretrain.run(settings, store)
    options = compute_in(settings)
    clip = system.load_clip(settings.foundation, compute_dtype=options["dtype"])
    generator = system.generator(settings)
    module = build_module(settings, generator, clip_dim=clip.model.module.projection_dim)
    parts = split(init_params(settings, module), groups=groups(settings.contrast))
    augment = pipeline.Augment(
        crop_probability=settings.contrast.crop_probability,
        crop_fraction=settings.contrast.crop_fraction,
    )

    text, captions, weights = None, None, None
    if settings.contrast.token_scale:
        text = generator.load_text_encoder(compute_dtype=options["dtype"])
        tokenizer = system.caption_tokenizer(settings, generator)
        captions = tokenizer(store.attributes.captions["train"])
        weights = jax.device_get(caption_weights(jnp.asarray(captions), end=tokenizer.end))
    frozen = {
        "fixed": parts.frozen,
        "clip": clip.model.variables,
        "text": text.variables if text else None,
        "captions": captions,
        "weights": weights,
    }

    trained = run_stage(
        settings,
        NAME,
        says="stage 1, fMRI against CLIP's images and texts"
        + from_folder(settings, NAME, "start_from", without="its alignment")
        + "; synonyms in captions from "
        + {"built-in": "the built-in thesaurus"}.get(thesaurus(), thesaurus()),
        init=parts.trainable,
        frozen=frozen,
        loss_fn=loss_of(settings.contrast, module.clone(**options), clip, text),
        groups=groups(settings.contrast),
        batches=batches(
            settings, in_common_space(settings, store), NAME, augment=augment, latents=False
        ),
    )
    params = jax.device_get(merge(trained, parts.frozen))
    store_model(
        settings, NAME, lambda folder: system.save_own("fmri_encoder", folder, module, params)
    )


def main(settings: config.Config) -> None:
    with begun(settings) as store:
        run(settings, store)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(
        main,
        arguments,
        command="train.contrast",
        description=__doc__,
        compile_only=compile_only,
    )
