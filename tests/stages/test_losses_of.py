"""The stages' losses: the formulas of the paper where every row is paired, each window's own
clip where not, and latents that are kept or made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.batch import Batch
from glfa_jax.diffusion.schedule import MODELSCOPE, noise_like
from glfa_jax.generators import Generator
from glfa_jax.generators.unet3d import UNet3DGenerator
from glfa_jax.models.vae import Posterior
from glfa_jax.stages import contrast, cotrain
from glfa_jax.system import EvaluationModel
from glfa_jax.training.losses import alignment_loss, contrastive_loss, token_loss

ROWS, SUBJECTS = 4, 2
MASK = jnp.asarray(np.random.default_rng(9).random((4, 4)) > 0.3, jnp.float32)
KEY = jax.random.key(3)
WEIGHT = jnp.asarray(np.random.default_rng(8).standard_normal((16, 5)), jnp.float32)
VISION = jnp.asarray(np.random.default_rng(7).standard_normal((3, 5)), jnp.float32)


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class Encoder:
    """Windows to a condition of one token and an embedding, both of width 5."""

    def apply(self, variables, fmri, **_):
        aligned = fmri * variables["params"]["gain"]
        features = aligned.mean(2).reshape(*fmri.shape[:2], 16) @ WEIGHT
        return SimpleNamespace(
            aligned=aligned, condition=features[:, :, None], embedding=unit(features)
        )


class Vae:
    """Frames to latents of half the size."""

    def apply(self, variables, video, method):
        assert method == "encode"
        gain = variables["params"]["gain"]
        small = video.reshape(*video.shape[:-3], 4, 2, 4, 2, 3).mean((-4, -2)) * gain
        mean = jnp.concatenate([small, small[..., :1]], axis=-1)
        return Posterior(mean, 0.1 * mean - 2)

    def to_diffusion(self, latents):
        return 0.2 * latents


class Unet:
    def apply(self, variables, noisy, t, condition):
        return noisy * variables["params"]["gain"] + condition[:, None, :, None, :4] + t.mean()


class ClipModel:
    def apply(self, variables, images, *, tokens):
        image = images.mean((1, 2)) @ VISION
        return SimpleNamespace(image=unit(image), text=unit(tokens @ WEIGHT[:6]))


class Text:
    def apply(self, variables, tokens):
        return SimpleNamespace(hidden=tokens[..., None] * WEIGHT[0])


CLIP = EvaluationModel(SimpleNamespace(module=ClipModel()), lambda frames: frames + 1)
CAPTIONS = jnp.asarray(np.random.default_rng(6).integers(50, size=(40, 6)))
WEIGHTS = jnp.asarray(np.random.default_rng(7).uniform(size=(40, 6)), jnp.float32)
ENCODER = {"gain": jnp.float32(1.2), "logit_scale": jnp.float32(2.0)}


def batch_of(clips, *, frames=3):
    """Content is a function of clip and subject: rows of (b, 1) or (b, s) clips."""
    clips = np.asarray(clips)

    def content(*key, shape):
        return np.random.default_rng(key).standard_normal(shape).astype(np.float32)

    return Batch(
        fmri=np.stack(
            [
                [content(s, row[s % len(row)], shape=(2, 4, 4)) for s in range(SUBJECTS)]
                for row in clips
            ]
        ),
        video=np.stack([[content(9, c, shape=(frames, 8, 8, 3)) for c in row] for row in clips]),
        tokens=np.stack([[content(8, c, shape=6) * 9 for c in row] for row in clips]).astype(int),
        clip=clips,
        paired=np.array([len(set(row)) == 1 for row in clips.tolist()]),
    )


def generator_of(settings: config.Cotrain, unet: Any = None) -> Generator:
    vae: Any = Vae()
    return UNet3DGenerator(Path(), unet or Unet(), vae, MODELSCOPE).as_trained(settings)


def stage_two(batch, unet=None, **changes):
    settings = config.Cotrain(**changes)
    loss = cotrain.loss_of(settings, Encoder(), generator_of(settings, unet))
    frozen = {"fixed": {}, "codec": {"gain": jnp.float32(1.5)}, "mask": MASK}
    params = {"encoder": {"gain": ENCODER["gain"]}, "unet": {"gain": jnp.float32(0.3)}}
    return loss(params, frozen, batch, KEY)


def stage_one(batch, *, text=None):
    loss = contrast.loss_of(config.Contrast(token_scale=0.5), Encoder(), CLIP, text)
    frozen = {"fixed": {}, "clip": {}, "text": {}, "captions": CAPTIONS, "weights": WEIGHTS}
    return loss(ENCODER, frozen, batch, KEY)


def near(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_stage_two_of_paired_rows_is_the_formula():
    batch = batch_of(np.arange(ROWS)[:, None])
    loss, metrics = stage_two(batch, offset_noise=0.1)

    _, vae_key, noise_key, time_key = jax.random.split(KEY, 4)
    video = jnp.asarray(batch.video[:, 0])
    latents = 0.2 * Vae().apply({"params": {"gain": 1.5}}, video, "encode").sample(vae_key)
    latents = jnp.repeat(latents, SUBJECTS, axis=0)
    noise = noise_like(noise_key, latents, offset_strength=0.1)
    t = jax.random.randint(time_key, (ROWS * SUBJECTS,), 0, 1000)
    encoded = Encoder().apply({"params": ENCODER}, batch.fmri)
    condition = encoded.condition.reshape(ROWS * SUBJECTS, 1, 5)
    noisy = MODELSCOPE.add_noise(latents, noise=noise, t=t)
    prediction = Unet().apply({"params": {"gain": 0.3}}, noisy, t, condition)
    diffusion = jnp.square(prediction - noise).mean()
    glfa = alignment_loss(jnp.asarray(batch.fmri), encoded.aligned, MASK)
    assert metrics["diffusion"] == diffusion
    assert metrics["alignment"] == glfa.alignment
    assert metrics["regularisation"] == glfa.regularisation
    near(loss, diffusion + glfa.regularisation + 0.1 * glfa.alignment)


def test_both_presets_of_scales_are_two_lines():
    """The official code's are the defaults; the paper's lambda = 1/2 is of both parts."""
    batch = batch_of(np.arange(ROWS)[:, None])
    for scales, of_regularisation, of_alignment in (
        ({"glfa_scale": 1.0, "alignment_scale": 0.1}, 1.0, 0.1),
        ({"glfa_scale": 0.5, "alignment_scale": 1.0}, 0.5, 0.5),
        ({"glfa_scale": 0.0}, 0.0, 0.0),
    ):
        loss, found = stage_two(batch, **scales)
        glfa = of_regularisation * found["regularisation"] + of_alignment * found["alignment"]
        near(loss, found["diffusion"] + glfa)
    for preset, of_regularisation, of_alignment in (("code", 1.0, 0.1), ("paper", 0.5, 0.5)):
        loss, found = stage_two(batch, preset=preset)
        glfa = of_regularisation * found["regularisation"] + of_alignment * found["alignment"]
        near(loss, found["diffusion"] + glfa)


def test_a_step_gives_the_generator_a_key_where_it_is_to_drop():
    """A key of its own, so that noise and times stay what they are without."""
    batch, keys = batch_of(np.arange(ROWS)[:, None]), []

    class Dropping:
        def clone(self, *, dropout):
            assert dropout == 0.1
            return self

        def apply(self, variables, noisy, t, condition, **training):
            if training:
                assert training["deterministic"] is False
                keys.append(training["rngs"]["dropout"])
            return Unet().apply(variables, noisy, t, condition)

    loss, _ = stage_two(batch, unet=Dropping(), temporal_dropout=0.1)
    assert loss == stage_two(batch, unet=Dropping())[0]
    (key,) = keys
    others = [*jax.random.split(KEY, 4)]
    assert all(np.any(jax.random.key_data(key) != jax.random.key_data(x)) for x in others)


def test_stage_one_of_paired_rows_is_the_formula():
    batch = batch_of(np.arange(ROWS)[:, None])
    loss, metrics = stage_one(batch)
    target = ClipModel().apply({}, jnp.asarray(batch.video[:, 0, 0]) + 1, tokens=batch.tokens[:, 0])
    embedding = Encoder().apply({"params": ENCODER}, batch.fmri).embedding
    parts = [
        contrastive_loss(
            embedding[:, s], image=target.image, text=target.text, logit_scale=jnp.float32(2.0)
        )
        for s in range(SUBJECTS)
    ]
    assert loss == sum(part.total for part in parts) / SUBJECTS
    assert metrics["image"] == sum(part.image for part in parts) / SUBJECTS
    assert metrics["text"] == sum(part.text for part in parts) / SUBJECTS


def test_a_clip_held_once_or_for_every_subject_is_the_same_to_stage_one():
    text = SimpleNamespace(module=Text())
    once = stage_one(batch_of(np.arange(ROWS)[:, None]), text=text)
    each = stage_one(batch_of(np.repeat(np.arange(ROWS)[:, None], SUBJECTS, axis=1)), text=text)
    jax.tree.map(near, each, once)


def test_stage_one_contrasts_every_subject_with_its_own_clips():
    clips = np.arange(ROWS * SUBJECTS).reshape(ROWS, SUBJECTS)
    text = SimpleNamespace(module=Text())
    loss, metrics = stage_one(batch_of(clips), text=text)
    parts = []
    for subject in range(SUBJECTS):  # by itself: its clips, held once
        alone = batch_of(clips[:, subject : subject + 1])
        embedding = Encoder().apply({"params": ENCODER}, alone.fmri).embedding[:, subject]
        frames = jnp.asarray(alone.video[:, 0, 0]) + 1
        target = ClipModel().apply({}, frames, tokens=alone.tokens[:, 0])
        parts.append(
            contrastive_loss(
                embedding, image=target.image, text=target.text, logit_scale=jnp.float32(2.0)
            ).total
        )
    near(loss - 0.5 * metrics["tokens"], sum(parts) / SUBJECTS)


def test_conditions_are_drawn_to_captions_as_they_are():
    batch = batch_of([[0, 1], [2, 2], [3, 4], [5, 6]])
    reworded = batch._replace(tokens=batch.tokens[..., ::-1])
    (_, one), (_, other) = (
        stage_one(b, text=SimpleNamespace(module=Text())) for b in (batch, reworded)
    )
    near(one["tokens"], other["tokens"])
    assert abs(one["text"] - other["text"]) > 1e-3
    hidden = Text().apply({}, CAPTIONS[batch.clip]).hidden
    condition = Encoder().apply({"params": ENCODER}, batch.fmri).condition
    weights = WEIGHTS[batch.clip]
    near(one["tokens"], token_loss(condition, tokens=hidden, weights=weights))


def test_stage_two_generates_every_window_its_own_clip():
    batch = batch_of(np.arange(ROWS * SUBJECTS).reshape(ROWS, SUBJECTS))
    seen = []

    class Watching(Unet):
        def apply(self, variables, noisy, t, condition):
            seen.append((noisy.reshape(ROWS, SUBJECTS, -1), condition))
            return super().apply(variables, noisy, t, condition)

    def look(latents):
        settings = config.Cotrain()
        loss = cotrain.loss_of(settings, Encoder(), generator_of(settings, Watching()))
        params = {"encoder": {"gain": ENCODER["gain"]}, "unet": {"gain": jnp.float32(0.3)}}
        loss(params, {"fixed": {}, "mask": MASK}, batch._replace(latents=latents), KEY)
        return seen.pop()

    latents = np.zeros((ROWS, SUBJECTS, 3, 4, 4, 8), np.float32)
    latents[..., 4:] = -30
    marked = latents.copy()
    marked[1, 1, ..., :4] = 1.0
    (plain, condition), (other, _) = look(latents), look(marked)
    changed = np.abs(other - plain).max(-1) > 0
    assert changed.tolist() == [[row == 1 and s == 1 for s in (0, 1)] for row in range(ROWS)]
    windows = Encoder().apply({"params": ENCODER}, batch.fmri).condition
    np.testing.assert_array_equal(condition.reshape(windows.shape), windows)


def test_stage_two_aligns_paired_rows_alone():
    clips = np.array([[0, 0], [1, 1], [2, 3], [4, 5]])
    whole, paired = stage_two(batch_of(clips))[1], stage_two(batch_of(clips[:2, :1]))[1]
    near(whole["alignment"], paired["alignment"])
    assert stage_two(batch_of(clips[2:]))[1]["alignment"] == 0
    every = stage_two(batch_of(clips))[1]["regularisation"]
    halves = [stage_two(batch_of(part))[1]["regularisation"] for part in (clips[:2], clips[2:])]
    near(every, np.mean(halves))


@pytest.mark.parametrize("clips", [np.arange(ROWS)[:, None], np.arange(8).reshape(4, 2)])
def test_kept_latents_give_the_loss_of_encoding(clips):
    batch = batch_of(clips)
    video = jnp.asarray(batch.video)
    posterior = Vae().apply({"params": {"gain": jnp.float32(1.5)}}, video, "encode")
    kept = batch._replace(latents=np.concatenate(posterior, axis=-1), video=batch.video[:, :, :0])
    jax.tree.map(near, stage_two(kept), stage_two(batch))
