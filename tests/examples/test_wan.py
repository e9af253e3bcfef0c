"""How the simulated study's Wan is trained: its tokenizer, and from single frames to clips."""

import itertools
import json
from typing import Any

import jax
import numpy as np
import pytest
import transformers

from benchmarks.models import TINY
from examples.simulated.latents import CaptionedLatents
from examples.simulated.run import Run
from examples.simulated.settings import Models
from examples.simulated.t5_tokenizer import vocabulary_size, write_tokenizer
from examples.simulated.wan_autoencoder import inflated
from glfa_jax import config
from glfa_jax.convert import pretrained

LENGTH = 8
TEXTS = [
    f"a {size} {colour} {thing}"
    for size, colour, thing in itertools.product(
        ("small", "large"), ("red", "blue"), ("ball", "house")
    )
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(TEXTS, folder, max_length=LENGTH)
    return transformers.T5TokenizerFast.from_pretrained(folder)


def test_words_of_captions_are_single_tokens_and_others_are_spelt(tokenizer):
    ids = tokenizer("a large red ball")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["▁a", "▁large", "▁red", "▁ball", "</s>"]
    spelt = tokenizer.convert_ids_to_tokens(tokenizer("reds Cat")["input_ids"])
    assert spelt == ["▁red", "s", "▁", "C", "a", "t", "</s>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_the_order_of_the_texts_does_not_matter(tokenizer, tmp_path):
    write_tokenizer(TEXTS[::-1], tmp_path, max_length=LENGTH)
    assert tokenizer.get_vocab() == json_vocabulary(tmp_path)
    assert vocabulary_size(tmp_path) == len(tokenizer)


def json_vocabulary(folder) -> dict:
    pieces = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return {token: i for i, (token, _) in enumerate(pieces)}


def test_what_was_learnt_from_frames_holds_for_every_frame_of_a_clip():
    module: Any = pretrained.build("wan_vae", TINY["wan_vae"])
    frame = np.random.default_rng(0).uniform(-1, 1, (1, 1, 16, 16, 3)).astype(np.float32)
    drawn = jax.jit(module.init)(jax.random.key(0), frame)["params"]
    still = np.repeat(frame, 5, axis=1)

    @jax.jit
    def latents_and_video(params):
        mean = module.apply({"params": params}, still, method="encode").mean
        return mean, module.apply({"params": params}, mean, method="decode")

    # The first frame of a clip is passed through alone.
    for found in latents_and_video(jax.tree.map(inflated, drawn)):
        spread = np.abs(found).max()
        assert spread > 1e-3
        np.testing.assert_allclose(
            found, np.broadcast_to(found[:, :1], found.shape), rtol=0, atol=1e-3 * spread
        )


def run_in(folder, **settings) -> Run:
    """A run that has not begun."""
    stage = config.Pretrain()
    stages = {"vae": stage, "generator_images": stage, "generator": stage}
    return Run(Models(name="run", out=folder, run_dir=folder, **stages, **settings))


@pytest.mark.parametrize(
    ("frames", "of", "shown"),
    [(5, 10, [1, 3, 5, 7, 9]), (5, 6, [0, 1, 3, 4, 5]), (6, 6, [0, 1, 2, 3, 4, 5])],
)
def test_models_see_the_frames_of_a_clip_that_a_store_holds(frames, of, shown, tmp_path):
    assert run_in(tmp_path, frames=frames, clip_frames=of).shown == shown


@pytest.mark.parametrize(
    ("one_frame", "shown"), [(None, {(0, 1)}), ("first", {(0,)}), ("any", {(0,), (1,)})]
)
def test_images_are_single_frames_of_latents(one_frame, shown, tmp_path):
    number = np.broadcast_to(np.arange(2.0)[:, None, None, None], (6, 2, 1, 1, 1))  # of the frame
    np.savez(tmp_path / "latents.npz", mean=number, deviation=np.zeros_like(number))
    run = run_in(tmp_path, frames=5, clip_frames=10, clips=len(number))
    run.write_tokenizer(write_tokenizer)
    autoencoder: Any = None  # has nothing left to encode
    clips = CaptionedLatents(run, autoencoder)
    batches = [
        clips.batch(np.random.default_rng(seed), 3, one_frame=one_frame) for seed in range(8)
    ]
    assert {tuple(clip.ravel()) for batch in batches for clip in batch["latents"]} == shown
    assert {batch["latents"].shape[0] for batch in batches} == {3}
