"""Captions to the tokens that Wan is conditioned on: diffusers' WanPipeline against ours."""

from pathlib import Path
from typing import NamedTuple

import diffusers
import jax
import numpy as np
import pytest
import transformers

from benchmarks import models
from examples.simulated.t5_tokenizer import vocabulary_size, write_tokenizer
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained, in_memory
from glfa_jax.data.captions import Tokenizer
from tests.parity import transformers_models as common

LENGTH = 9
WORDS = ["a small red ball moves to the left", "a big ball", "cats & dogs, don't"]
CAPTIONS = [
    "a small red ball",
    "  a big\n\tball \u3000 moves ",
    "cats &amp;amp; dogs, don&#39;t",
    "",
    "a Zebra's café ☃ ball",
    "the ball</s> moves <unk>",
    "a small red ball moves to the left a small red ball moves to the left",
]


class Pair(NamedTuple):
    theirs: diffusers.WanPipeline
    ours: Pretrained
    folder: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pipeline")
    write_tokenizer(WORDS, folder / "tokenizer", max_length=LENGTH)
    settings = models.small_umt5(16, heads=2, inner=12, layers=2)
    settings |= {"vocab_size": vocabulary_size(folder / "tokenizer"), "model_type": "umt5"}
    torch_model = models.randomise(models.torch_model("umt5_text", settings), seed=0)
    torch_model.save_pretrained(folder / "text_encoder")
    pipeline = diffusers.WanPipeline(
        tokenizer=transformers.T5TokenizerFast.from_pretrained(folder / "tokenizer"),
        text_encoder=torch_model,
        vae=None,
        transformer=None,
        scheduler=diffusers.UniPCMultistepScheduler(),
    )
    return Pair(pipeline, in_memory(pretrained.load("umt5_text", folder / "text_encoder")), folder)


@pytest.mark.parametrize("length", [2, LENGTH, 30])
def test_tokens_and_what_the_text_encoder_makes_of_them(pair: Pair, length: int) -> None:
    tokenize = Tokenizer.load(pair.folder / "tokenizer", length=length)
    cleaned = [diffusers.pipelines.wan.pipeline_wan.prompt_clean(text) for text in CAPTIONS]
    wanted = pair.theirs.tokenizer(
        cleaned, padding="max_length", max_length=length, truncation=True
    )
    tokens = tokenize(CAPTIONS)
    np.testing.assert_array_equal(tokens, wanted["input_ids"])
    np.testing.assert_array_equal(tokens != 0, np.array(wanted["attention_mask"], bool))
    assert ((tokens == tokenize.end).sum(1) >= 1).all()

    hidden = pair.theirs._get_t5_prompt_embeds(CAPTIONS, max_sequence_length=length)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(pair.ours.module.apply)(pair.ours.variables, tokens).hidden
    common.assert_close(got, hidden, common.FORWARD)
    assert not np.asarray(got)[tokens == 0].any()
