"""The classifiers of frames and of videos, which evaluate what is decoded."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from examples.simulated.run import ENCODER, HELD_OUT_SEED, Run, draw, labels
from examples.simulated.settings import Foundation
from glfa_jax.convert import pretrained
from glfa_jax.simulate import stimuli


def train_on_frames(run: Run[Foundation]) -> None:
    """A ViT that tells category and colour."""

    def make(rng, clips=run.settings.image_classifier.batch_size):
        scenes = draw(rng, clips)
        label = labels(stimuli.frame_label, scenes)
        return {"input": run.images(scenes, rng), "label": label}

    settings = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    _train(run, "image_classifier", "vit", settings, stimuli.FRAME_CLASSES, make)


def train_on_videos(run: Run[Foundation]) -> None:
    """A VideoMAE that tells category and motion."""

    def make(rng, clips=run.settings.video_classifier.batch_size):
        scenes = draw(rng, clips)
        return {"input": run.videos(scenes), "label": labels(stimuli.video_label, scenes)}

    settings = {
        "model_type": "videomae",
        "architectures": ["VideoMAEForVideoClassification"],
        "num_frames": run.settings.frames,
        "tubelet_size": 3,
        "use_mean_pooling": True,
    }
    _train(run, "video_classifier", "video_mae", settings, stimuli.VIDEO_CLASSES, make)


def _train(
    run: Run, name: str, kind: str, settings: dict, classes: tuple[str, ...], make: Callable
) -> None:
    architecture = {
        **ENCODER,
        **settings,
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_channels": 3,
        "image_size": run.settings.size,
        "patch_size": 8,
        "qkv_bias": True,
        "id2label": {str(i): label for i, label in enumerate(classes)},
        "label2id": {label: i for i, label in enumerate(classes)},
    }
    module = pretrained.build(kind, architecture)

    def loss_fn(params, frozen, batch, key):
        # Samples of a generator are a little blurred and noisy; the classifier should not mind.
        level_key, noise_key = jax.random.split(key)
        shape = (len(batch["label"]),) + (1,) * (batch["input"].ndim - 1)
        level = 0.2 * jax.random.uniform(level_key, shape)
        noisy = batch["input"] + level * jax.random.normal(noise_key, batch["input"].shape)
        logits: Any = module.apply({"params": params}, noisy)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        return loss, {"accuracy": (logits.argmax(-1) == batch["label"]).mean()}

    params = run.train(name, kind, module, loss_fn, make)
    folder = run.out / name.replace("_", "-")
    model = run.save(kind, folder, params, architecture)
    processor = {"vit": "ViTImageProcessor", "video_mae": "VideoMAEImageProcessor"}[kind]
    run.write_preprocessor(folder, processor)
    held_out = make(np.random.default_rng(HELD_OUT_SEED), 256)
    logits = jax.jit(model.module.apply)(model.variables, held_out["input"])
    accuracy = float((logits.argmax(-1) == held_out["label"]).mean())
    run.report(name, accuracy_of_64=accuracy)
