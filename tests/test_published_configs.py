"""The shipped configurations of the paper's experiments, resolved, against what the paper states.

`docs/paper_run.md` quotes the sentence that stands behind each value.
"""

import math
from pathlib import Path
from typing import Any

import jax
import pytest

from glfa_jax import config, system
from glfa_jax.convert import pretrained
from glfa_jax.method import method_name, training_words
from glfa_jax.stages import pretrain

CONFIGS = Path(__file__).parents[1] / "configs"
BENCHMARK, WEBVID, FCVID = "wen2018", "fudan_webvid", "fudan_fcvid"
ALL = (BENCHMARK, WEBVID, FCVID)

# What is the same on both data sets.
SHARED: dict[str, Any] = {
    "method": "glfa",
    "without": [],
    "data.map_size": 256,
    "encoder.patch_size": 16,
    "encoder.width": 1024,
    "encoder.depth": 24,
    "encoder.num_heads": 16,
    "encoder.decoder_depth": 24,
    "encoder.latent": 2048,
    "protocol.pretraining": "strict",
    "pretrain.batch_size": 64,
    "pretrain.learning_rate": 1e-4,
    "pretrain.weight_decay": 0.01,
    "pretrain.steps": 2000,
    "contrast.learning_rate": 2e-5,
    "contrast.weight_decay": 0.01,
    "contrast.steps": 12000,
    "contrast.dropout": 0.6,
    "contrast.token_scale": 0.0,
    "contrast.logit_scale_max": None,
    "cotrain.weight_decay": 0.01,
    "cotrain.preset": "paper",
    "cotrain.trainable": "attention",
    "cotrain.temporal_dropout": 0.0,
    "cotrain.paired_fraction": 1.0,
    "alignment.method": "glfa",
    "alignment.global_part": True,
    "alignment.local_part": True,
    "alignment.kernel_size": 13,
    "alignment.per_subject": False,
    "evaluation.sampler": "dpm++",
    "evaluation.ways": [2, 50],
    "hardware.compute_dtype": "bfloat16",
    "hardware.frozen_dtype": "bfloat16",
    "hardware.remat": True,
}
# The supplement's Table 1 and what it says of stage 1, by data set.
OWN_SET = {
    "foundation": "foundation/zeroscope",
    "data.frames": 12,
    "data.resolution": [320, 576],
    "contrast.batch_size": 24,
    "cotrain.batch_size": 12,
    "cotrain.learning_rate": 1e-4,
    "cotrain.steps": 30000,
    "evaluation.guidance_scale": 6.0,
    "evaluation.sampling_steps": 30,
}
STATED: dict[str, dict[str, Any]] = {
    BENCHMARK: {
        "foundation": "foundation/modelscope",
        "data.frames": 6,
        "contrast.batch_size": 32,
        "cotrain.batch_size": 16,
        "cotrain.learning_rate": 3e-5,
        "cotrain.steps": 18000,
        "evaluation.guidance_scale": 9.0,
        "evaluation.sampling_steps": 25,
        "protocol.train_subjects": ["1", "2"],
        "protocol.test_subjects": ["3"],
    },
    WEBVID: OWN_SET | {"protocol.train_subjects": ["1", "2", "3"]},
    FCVID: OWN_SET | {"data.subjects": ["1", "2", "3"]},
}


def resolved(name: str, *changes: str) -> config.Config:
    return config.load(CONFIGS / f"{name}.yaml", changes)


@pytest.mark.parametrize("name", ALL)
def test_every_value_that_the_paper_states_is_the_resolved_one(name):
    settings = resolved(name)
    # A preset is written in place of its scales.
    found = config.flat(settings.model_dump(mode="json"))
    expected = SHARED | STATED[name]
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_the_papers_and_the_codes_is_a_word_away(name):
    """lambda = 1/2 for L_GLFA."""
    stages = [resolved(name).cotrain, resolved(name, "cotrain.preset=code").cotrain]
    found = [(x.glfa_scale, x.regularisation_scale, x.alignment_scale) for x in stages]
    assert found == [(0.5, 1, 1), (1, 1, 0.1)]


@pytest.mark.parametrize("name", ALL)
def test_the_optimizer_is_adamw_at_a_constant_rate_and_clipped(name):
    settings = resolved(name)
    for stage in (settings.pretrain, settings.contrast, settings.cotrain):
        assert (stage.betas, stage.clip_norm) == ((0.9, 0.999), 1.0)
        assert (stage.decay, stage.warmup_steps, stage.accumulate) == ("constant", 0, 1)
    assert settings.contrast.logit_scale_rate == 10
    assert (settings.contrast.crop_fraction, settings.contrast.crop_probability) == (0.8, 0.5)


@pytest.mark.parametrize("name", ALL)
def test_fine_tuning_starts_from_the_released_autoencoder(name):
    settings = resolved(name)
    assert settings.pretrain.start_from == Path("foundation/fmri-pte")
    assert training_words(settings) == (
        "autoencoder fine-tuned from foundation/fmri-pte; loss scales of the paper"
    )
    assert method_name(settings) == "GLFA"
    ablation = resolved(name, "pretrain.start_from=null")
    assert "random weights, as in the paper's ablation" in training_words(ablation)


@pytest.mark.parametrize("name", ALL)
def test_fine_tuning_sees_training_subjects_alone(name):
    """Under the other protocol those of all subjects, as published numbers are said to have."""
    settings = resolved(name)
    assert pretrain.subjects(settings) == settings.protocol.train_subjects
    published = resolved(name, "protocol.pretraining=published")
    assert pretrain.subjects(published) == settings.data.subjects


def test_the_autoencoder_has_the_size_of_the_released_one():
    module = system.autoencoder(resolved(BENCHMARK))
    shapes = pretrained.parameter_shapes("fmri_autoencoder", module)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == 609_874_176
    assert (module.height, module.width, module.dim) == (256, 256, 1024)


def test_the_cross_dataset_test_is_of_three_on_three():
    """Table 3, as the command in configs/fudan_fcvid.yaml has it."""
    text = (CONFIGS / "fudan_fcvid.yaml").read_text()
    assert "python -m eval.sample --config configs/fudan_webvid.yaml" in text
    changes = [
        "protocol.test_store=data/fudan_fcvid.zarr",
        'protocol.test_subjects=["1", "2", "3"]',
    ]
    assert all(change in text for change in changes)
    settings, fcvid = resolved(WEBVID, *changes), resolved(FCVID)
    assert settings.protocol.kind() == "cross-dataset"
    assert len(settings.protocol.train_subjects) == len(settings.protocol.test_subjects) == 3
    assert settings.protocol.test_store == fcvid.data.store
    for key in ("map_size", "lag_seconds", "window", "frames", "resolution", "layout"):
        assert getattr(settings.data, key) == getattr(fcvid.data, key)
    # Batches hold whole rows of three subjects.
    assert settings.contrast.batch_size % 3 == settings.cotrain.batch_size % 3 == 0


def test_subjects_who_are_decoded_are_new_ones():
    for name in (BENCHMARK, WEBVID, FCVID):
        assert resolved(name).protocol.kind() == "cross-subject"
