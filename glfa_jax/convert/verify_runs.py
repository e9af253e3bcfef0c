"""How each kind of model is run in JAX and in PyTorch on the same random inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

Outputs = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """How to feed one kind of model; both sides give outputs of the same names, channels last.

    `inputs` makes them for a module, `ours` applies the module (with its variables bound),
    `theirs` PyTorch's class to the same as tensors.
    """

    inputs: Callable[[Any, np.random.Generator], dict[str, np.ndarray]]
    ours: Callable[..., Outputs]
    theirs: Callable[..., Outputs]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _image(module: Any, rng: np.random.Generator) -> np.ndarray:
    return normal(rng, 2, module.image_size, module.image_size, 3)


def _tokens(module: Any, rng: np.random.Generator) -> np.ndarray:
    """Captions of any words that end where a caption may end."""
    tokens = rng.integers(0, module.vocab_size, (2, module.max_position_embeddings))
    # An end token of 2 stands for the largest index, see models.clip_model.
    tokens[:, -1] = module.vocab_size - 1 if module.eos_token_id == 2 else module.eos_token_id
    return tokens.astype(np.int32)


def _first(x: Any) -> Any:
    return x.movedim(-1, 1)


def _last(x: Any) -> Any:
    return x.movedim(1, -1)


def _unet_inputs(module: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    side = 2 ** len(module.block_out_channels)
    return {
        "sample": normal(rng, 2, 2, side, side, module.in_channels),
        "timestep": np.array([10, 900], np.int32),
        "conditioning": normal(rng, 2, 5, module.cross_attention_dim),
    }


def _wan_inputs(module: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    frames, rows, columns = (n * p for n, p in zip((2, 2, 3), module.patch_size, strict=True))
    return {
        "sample": normal(rng, 2, frames, rows, columns, module.in_channels),
        "timestep": np.array([10.5, 900], np.float32),
        "conditioning": normal(rng, 2, 5, module.text_dim),
    }


def _vae_inputs(module: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    factor = 2 ** (len(module.block_out_channels) - 1)
    return {"pixels": normal(rng, 1, 2 * factor, 3 * factor, module.in_channels)}


def _wan_vae_inputs(module: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The third frame of latents is the first that is decoded with all pasts in use."""
    frames, side = 1 + 2 * module.frames_per_latent, module.pixels_per_latent
    return {"pixels": normal(rng, 1, frames, 2 * side, 3 * side, module.in_channels)}


def _our_vae(apply: Any, pixels: Any) -> Outputs:
    posterior = apply(pixels, method="encode")
    return {
        "mean": posterior.mean,
        "log variance": posterior.log_variance,
        "pixels": apply(posterior.mean, method="decode"),
    }


def _their_vae(model: Any, pixels: Any) -> Outputs:
    posterior = model.encode(_first(pixels)).latent_dist
    decoded = model.decode(posterior.mean).sample
    return {
        "mean": _last(posterior.mean),
        "log variance": _last(posterior.logvar),
        "pixels": _last(decoded),
    }


def _our_clip(apply: Any, image: Any, tokens: Any) -> Outputs:
    out = apply(image, tokens=tokens)
    logits = jnp.exp(out.logit_scale) * out.image @ out.text.T
    return {"image embedding": out.image, "text embedding": out.text, "logits": logits}


def _their_clip(model: Any, image: Any, tokens: Any) -> Outputs:
    out = model(input_ids=tokens.long(), pixel_values=_first(image))
    return {
        "image embedding": out.image_embeds,
        "text embedding": out.text_embeds,
        "logits": out.logits_per_image,
    }


def _our_text(apply: Any, tokens: Any) -> Outputs:
    out = apply(tokens)
    return {"hidden": out.hidden, "pooled": out.pooled}


def _their_text(model: Any, tokens: Any) -> Outputs:
    out = model(tokens.long())
    return {"hidden": out.last_hidden_state, "pooled": out.pooler_output}


def _padded(module: Any, rng: np.random.Generator) -> np.ndarray:
    """Captions of 7 and of 12 tokens: for distances beyond the first buckets, and padding."""
    tokens = rng.integers(1, module.vocab_size, (2, 12))
    tokens[tokens == module.pad_token_id] = 0 if module.pad_token_id else 1
    tokens[0, 7:] = module.pad_token_id
    return tokens.astype(np.int32)


def _their_padded(model: Any, tokens: Any) -> Outputs:
    mask = tokens != model.config.pad_token_id
    hidden = model(tokens.long(), attention_mask=mask.long()).last_hidden_state
    return {"hidden": hidden * mask[..., None]}


def _volume(module: Any, rng: np.random.Generator, *batch: int) -> np.ndarray:
    """Maps that are zero off an imaginary cortex."""
    volumes = normal(rng, *batch, module.height, module.width)
    return volumes * (rng.random((module.height, module.width)) < 0.7)


def _our_encoder(apply: Any, fmri: Any) -> Outputs:
    return apply(fmri)._asdict()


RUNS = {
    "unet3d": Run(
        _unet_inputs,
        lambda apply, **x: {"prediction": apply(*x.values())},
        lambda model, sample, timestep, conditioning: {
            "prediction": _last(model(_first(sample), timestep.long(), conditioning).sample)
        },
    ),
    "wan": Run(
        _wan_inputs,
        lambda apply, **x: {"prediction": apply(*x.values())},
        lambda model, sample, timestep, conditioning: {
            "prediction": _last(model(_first(sample), timestep, conditioning).sample)
        },
    ),
    "vae": Run(_vae_inputs, _our_vae, _their_vae),
    "wan_vae": Run(_wan_vae_inputs, _our_vae, _their_vae),
    "clip": Run(
        lambda m, rng: {
            "image": _image(m.vision_model, rng),
            "tokens": _tokens(m.text_model, rng),
        },
        _our_clip,
        _their_clip,
    ),
    "clip_text": Run(lambda m, rng: {"tokens": _tokens(m, rng)}, _our_text, _their_text),
    "umt5_text": Run(
        lambda m, rng: {"tokens": _padded(m, rng)},
        lambda apply, tokens: apply(tokens)._asdict(),
        _their_padded,
    ),
    "vit": Run(
        lambda m, rng: {"image": _image(m, rng)},
        lambda apply, image: {"logits": apply(image)},
        lambda model, image: {"logits": model(_first(image)).logits},
    ),
    "video_mae": Run(
        lambda m, rng: {"video": normal(rng, 2, m.num_frames, m.image_size, m.image_size, 3)},
        lambda apply, video: {"logits": apply(video)},
        lambda model, video: {"logits": model(video.movedim(-1, 2)).logits},
    ),
    "fmri_autoencoder": Run(
        lambda m, rng: {"volume": _volume(m, rng, 2)},
        lambda apply, volume: apply(volume)._asdict(),
        lambda model, volume: model(volume),
    ),
    "fmri_encoder": Run(
        lambda m, rng: {"fmri": _volume(m, rng, 2, m.window)},
        _our_encoder,
        lambda model, fmri: model(fmri),
    ),
    "lea": Run(
        lambda m, rng: {"fmri": _volume(m, rng, 2, m.window)},
        _our_encoder,
        lambda model, fmri: model(fmri),
    ),
}
