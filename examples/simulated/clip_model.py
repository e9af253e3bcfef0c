"""CLIP, which ties frames to captions, and whose text encoder the generator begins with."""

import json
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from examples.simulated.run import ENCODER, WIDTH, Run, draw, held_out
from examples.simulated.settings import Foundation
from glfa_jax.convert import pretrained
from glfa_jax.simulate import stimuli

_WORD_SCALE = 50.0  # of the initial word embeddings: their standard deviation 0.02 becomes 1


class TextEncoder(NamedTuple):
    """CLIP's text encoder, and the settings with which it is stored by itself."""

    model: pretrained.Pretrained
    architecture: dict[str, Any]


def trained(run: Run[Foundation]) -> TextEncoder:
    """Stores CLIP; its text encoder is for the generator, which trains and stores it."""
    vocabulary = json.loads((run.folder / "tokenizer" / "vocab.json").read_text())
    text = {
        **ENCODER,
        "model_type": "clip_text_model",
        "vocab_size": len(vocabulary),
        "max_position_embeddings": run.settings.caption_tokens,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 2,
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
    }
    vision = {
        **ENCODER,
        "model_type": "clip_vision_model",
        "image_size": run.settings.size,
        "patch_size": 8,
        "hidden_size": 96,
        "intermediate_size": 384,
    }
    architecture = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": WIDTH,
        "text_config": text,
        "vision_config": vision,
    }
    module = pretrained.build("clip", architecture)

    def loss_fn(params, frozen, batch, key):
        out: Any = module.apply({"params": params}, batch["image"], tokens=batch["tokens"])
        logits = jnp.exp(out.logit_scale) * out.image @ out.text.T
        labels = jnp.arange(len(logits))
        rows = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        columns = optax.softmax_cross_entropy_with_integer_labels(logits.T, labels).mean()
        accuracy = (logits.argmax(1) == labels).mean()
        return (rows + columns) / 2, {"accuracy": accuracy}

    def make(rng):
        scenes = draw(rng, run.settings.clip.batch_size)
        captions = [stimuli.caption(scene, rng) for scene in scenes]
        return {"image": run.images(scenes, rng), "tokens": run.tokenize(captions)}

    def spread_words(params):
        # Single frames hardly tell left from right, so CLIP will not learn to; but the
        # generator must hear the difference. Words that begin wide apart stay apart.
        words = params["text_model"]["embeddings.token_embedding"]
        words["embedding"] *= _WORD_SCALE
        return params

    params = run.train("clip", "clip", module, loss_fn, make, adjust=spread_words)
    variables = run.save("clip", run.out / "clip", params, architecture).variables
    run.write_preprocessor(run.out / "clip", "CLIPImageProcessor")
    scenes = held_out(64)
    batch = {
        "image": run.images(scenes, np.random.default_rng(0)),
        "tokens": run.tokenize([stimuli.caption(scene) for scene in scenes]),
    }
    _, metrics = loss_fn(variables["params"], (), batch, None)
    run.report("clip", retrieval_of_64=float(metrics["accuracy"]))
    alone = {**text, "architectures": ["CLIPTextModel"]}
    return TextEncoder(
        pretrained.Pretrained(
            pretrained.build("clip_text", alone), {"params": variables["params"]["text_model"]}
        ),
        alone,
    )
