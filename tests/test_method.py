"""What methods are called in tables."""

import pytest

from glfa_jax import config
from glfa_jax.method import method_name, training_words

BARE = {"global_part": False, "local_part": False}


def settings(**sections) -> config.Config:
    return config.Config(
        name="a",
        run_dir="run",
        foundation="foundation",
        data={"root": "data", "store": "store", "subjects": ["a", "b"]},
        protocol={"train_subjects": ["a"], "test_subjects": ["b"]},
        **sections,
    )


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({}, "GLFA"),
        ({"alignment": BARE}, "fMRI-PTE-V"),
        ({"without": ["pretrain"]}, "GLFA w/o pretraining"),
        ({"without": ["contrast"]}, "GLFA w/o stage 1"),
        ({"without": ["contrast", "pretrain"]}, "GLFA w/o pretraining, w/o stage 1"),
        ({"alignment": {"global_part": False}}, "GLFA w/o global"),
        ({"alignment": {"local_part": False}}, "GLFA w/o local"),
        ({"cotrain": {"glfa_scale": 0}}, "GLFA w/o consistency loss"),
        (
            {"cotrain": {"regularisation_scale": 0, "alignment_scale": 0}},
            "GLFA w/o consistency loss",
        ),
        ({"cotrain": {"alignment_scale": 0}}, "GLFA w/o alignment loss"),
        ({"cotrain": {"regularisation_scale": 0}}, "GLFA w/o regularisation"),
        ({"cotrain": {"glfa_scale": 0.5, "alignment_scale": 1}}, "GLFA"),
        ({"alignment": {"per_subject": True}}, "GLFA, per-subject alignment"),
        ({"evaluation": {"adapted_minutes": 4}}, "GLFA, fitted to 4 min"),
        (
            {"evaluation": {"adapted_minutes": 0}, "adapt": {"method": "anatomy"}},
            "GLFA, fitted to anatomy alone",
        ),
        (
            {"adapt": {"encoder": {"steps": 9}}, "evaluation": {"adapted_minutes": 4}},
            "GLFA, fitted to 4 min with encoder",
        ),
        ({"adapt": {"encoder": {"steps": 9}}}, "GLFA"),
        ({"contrast": {"token_scale": 1}}, "GLFA, caption tokens"),
        ({"method": "lea"}, "LEA"),
        ({"method": "lea", "lea": {"cotrain_generator": True}}, "LEA, generator co-trained"),
        ({"contrast": {"token_scale": 1}, "without": ["contrast"]}, "GLFA w/o stage 1"),
        (
            {"alignment": BARE, "without": ["pretrain"], "cotrain": {"glfa_scale": 0}},
            "fMRI-PTE-V w/o pretraining",
        ),
        (
            {
                "alignment": {"per_subject": True, "global_part": False},
                "cotrain": {"trainable": "lora"},
                "evaluation": {"adapted_minutes": 0.5},
            },
            "GLFA w/o global, per-subject alignment, LoRA, fitted to 0.5 min",
        ),
        (
            {"generator": "wan", "cotrain": {"frozen_kernels": "int8"}},
            "GLFA, generator wan, LoRA, frozen kernels in int8",
        ),
        ({"generator": "wan", "cotrain": {"trainable": "attention"}}, "GLFA, generator wan"),
        ({"generator": "wan", "method": "lea"}, "LEA, generator wan"),
    ],
)
def test_every_variant_has_its_name(sections, name):
    assert method_name(settings(**sections)) == name


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {},
            "autoencoder from random weights, as in the paper's ablation without pretraining; loss "
            "scales of the official code",
        ),
        (
            {"pretrain": {"start_from": "/x/models/fmri-pte"}, "cotrain": {"preset": "paper"}},
            "autoencoder fine-tuned from models/fmri-pte; loss scales of the paper",
        ),
        (
            {"without": ["pretrain"], "cotrain": {"glfa_scale": 0}},
            "encoder from random weights, not pretrained; loss scales of its own (glfa_scale 0, "
            "regularisation_scale 1, alignment_scale 0.1)",
        ),
        (
            {"contrast": {"start_from": "glfa/encoder"}, "alignment": BARE},
            "stage 1 from the encoder in glfa/encoder",
        ),
        (
            {
                "contrast": {"start_from": "other"},
                "cotrain": {"encoder_from": "glfa/encoder", "generator_from": "glfa"},
            },
            "stage 2 from the encoder in glfa/encoder; generator from glfa; loss scales of the "
            "official code",
        ),
        (
            {"method": "lea", "pretrain": {"start_from": "fmri-pte"}},
            "autoencoder fine-tuned from fmri-pte",
        ),
    ],
)
def test_results_say_from_what_and_with_which_scales(sections, words):
    assert training_words(settings(**sections)) == words


def test_a_generator_that_is_trained_behind_a_regression_says_where_it_began():
    from_elsewhere = {"generator_from": "a/b/model"}
    trained = settings(method="lea", lea={"cotrain_generator": True}, cotrain=from_elsewhere)
    assert training_words(trained).endswith("; generator from b/model")
    as_it_is = settings(method="lea", cotrain=from_elsewhere)
    assert "generator" not in training_words(as_it_is)
