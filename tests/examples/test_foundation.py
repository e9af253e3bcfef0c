"""The committed foundation models work: on clips and captions that nobody trained on."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import generators, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.captions import Tokenizer
from glfa_jax.diffusion.guidance import guided
from glfa_jax.simulate import stimuli

FOLDER = Path(__file__).parents[2] / "foundation" / "simulated"
# Folder of the generator, and frames that it was trained on.
GENERATORS = {"unet3d": (FOLDER, 6), "wan": (FOLDER.with_name("simulated_wan"), 5)}
CLIPS = 24  # that are generated
TRUE_CLIPS = 128  # that are judged


@pytest.fixture(scope="module")
def scenes() -> list[stimuli.Scene]:
    rng = np.random.default_rng(2024)
    return [stimuli.sample_scene(rng, index) for index in range(TRUE_CLIPS)]


def accuracy(logits, labels, part) -> float:
    """Share of clips whose category (part 0) or colour or motion (part 1) is recognised."""
    found, wanted = np.asarray(logits).argmax(-1), np.asarray(labels)
    return float((np.divmod(found, 8)[part] == np.divmod(wanted, 8)[part]).mean())


def test_all_models_fit_into_ten_megabytes():
    for folder, _ in GENERATORS.values():
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 10e6
    found = json.loads((GENERATORS["wan"][0] / "results.json").read_text())
    assert set(found) == {"generator", "true_clips", "unet3d", "vae"}
    assert set(json.loads((FOLDER / "results.json").read_text())) == {
        "clip",
        "generator",
        "image_classifier",
        "vae",
        "video_classifier",
    }


def test_classifiers_recognise_true_clips(scenes):
    videos = np.stack([stimuli.render(scene) for scene in scenes]).astype(np.float32) / 127.5 - 1
    video = pretrained.load("video_mae", FOLDER / "video-classifier")
    logits = jax.jit(video.module.apply)(video.variables, videos)
    labels = [stimuli.video_label(scene) for scene in scenes]
    assert min(accuracy(logits, labels, 0), accuracy(logits, labels, 1)) > 0.7
    image = pretrained.load("vit", FOLDER / "image-classifier")
    logits = jax.jit(image.module.apply)(image.variables, videos[:, 3])
    labels = [stimuli.frame_label(scene) for scene in scenes]
    assert min(accuracy(logits, labels, 0), accuracy(logits, labels, 1)) > 0.7


@pytest.fixture(scope="module", params=GENERATORS)
def generated(request, scenes) -> np.ndarray:
    """Videos of the first scenes' captions, and of nothing else."""
    folder, frames = GENERATORS[request.param]
    generator = generators.GENERATORS[request.param].open(folder / "text-to-video")
    denoiser, codec = in_memory((generator.load(), generator.load_codec()))
    text = in_memory(generator.load_text_encoder(compute_dtype=jnp.float32))
    tokenize = Tokenizer.load(generator.folder / "tokenizer")
    tokens = tokenize([stimuli.caption(scene) for scene in scenes[:CLIPS]] + [""])

    @jax.jit
    def generate(key):
        condition = text.module.apply(text.variables, tokens).hidden
        denoise = guided(
            partial(generator.denoise, denoiser),
            condition=condition[:-1],
            negative=condition[-1:],
            scale=5.0,
        )
        noise = jax.random.normal(key, (CLIPS, *generator.latent_shape(frames, 64, 64)))
        latent = generator.sample(denoise, noise, steps=12, method=generator.samplers[0])
        return jnp.clip(generator.decode(codec, latent), -1, 1)

    return np.asarray(generate(jax.random.key(7)))


# Chance is 1/8: 9 of 24 right have p < 0.002.


def test_text_becomes_video_of_the_category_and_motion_it_says(scenes, generated):
    judge = system.load_video_classifier(FOLDER, frames=generated.shape[1])
    video = in_memory(judge.model)
    logits = jax.jit(video.module.apply)(video.variables, generated)
    labels = [stimuli.video_label(scene) for scene in scenes[:CLIPS]]
    assert accuracy(logits, labels, 0) >= 9 / CLIPS
    assert accuracy(logits, labels, 1) >= 9 / CLIPS


def test_text_becomes_frames_of_the_category_and_colour_it_says(scenes, generated):
    frame = pretrained.load("vit", FOLDER / "image-classifier")
    logits = jax.jit(frame.module.apply)(frame.variables, generated[:, 3])
    labels = [stimuli.frame_label(scene) for scene in scenes[:CLIPS]]
    assert accuracy(logits, labels, 0) >= 9 / CLIPS
    assert accuracy(logits, labels, 1) >= 9 / CLIPS
