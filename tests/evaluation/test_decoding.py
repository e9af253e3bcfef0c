"""What evaluation rejects before anything is loaded or computed, and what it loads."""

import json
import weakref
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax import config, system
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.evaluation import decoding, score
from glfa_jax.evaluation.decoding import SCORING, open_test, validate_same_settings
from glfa_jax.trained import model, sampler
from glfa_jax.training.sharding import make_mesh
from tests.evaluation.tiny_run import finished
from tests.stages.variants import store_trained


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> config.Config:
    return finished(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluation.sampling_steps=1000", "evaluation.sampling_steps: 1000, must be below the "),
        ("sweep.sampling_steps=[10, 1000]", "sweep.sampling_steps: 1000, must be below the 1000 "),
        ("evaluation.ways=[2, 63]", "evaluation.ways: 63, but video-classifier knows 64 classes"),
    ],
)
def test_more_than_generator_and_judges_can_do(settings, override, said):
    assert open_test(settings).clips("03") == [0, 1, 2, 3]
    with pytest.raises(InputError, match=said):
        open_test(config.overridden(settings, [override]))


def test_what_is_asked_of_the_judges_is_checked_when_scoring(settings):
    """It may be new since sampling."""
    samples = settings.run_dir / "samples"
    samples.mkdir()
    (samples / "index.json").write_text("[]")
    with pytest.raises(InputError, match=r"evaluation\.ways: 63"):
        score.main(config.overridden(settings, ["evaluation.ways=[63]"]))
    open_test(config.overridden(settings, ["evaluation.ways=[62]"]))


def test_a_mesh_of_other_devices_is_rejected_with_what_helps(settings, monkeypatch):
    """A run trained on several devices is decoded on those at hand."""
    monkeypatch.setattr(decoding, "load_model", lambda *_, **__: pytest.fail("loaded"))
    elsewhere = config.overridden(settings, ["hardware.mesh={data: 3, fsdp: 5}"])
    with pytest.raises(
        TrainingError, match=r"devices, \d+; --set 'hardware\.mesh=\{\}' fits"
    ) as error:
        open_test(elsewhere).sampler()
    assert "data 3 x fsdp 5" in str(error.value)
    here = config.overridden(elsewhere, ["hardware.mesh={}"])
    assert make_mesh(here.hardware.mesh).shape == {
        "data": len(jax.devices()),
        "fsdp": 1,
        "frame": 1,
    }


def test_a_checkpoint_of_lora_needs_no_finished_generator(settings, tmp_path, monkeypatch):
    settings = config.overridden(
        settings, [f"run_dir={tmp_path}", "cotrain.trainable=lora", "cotrain.lora.scale=0.5"]
    )
    layer = store_trained(settings, clip_dim=64, tokens=20)["func_align_layer"]
    generator = system.generator(settings)
    kernels: dict[tuple, Any] = flatten_dict(in_memory(generator.load()))
    path = next(path for path in kernels if path[-3:] == ("attn1", "to_q", "kernel"))
    down, up = np.full((kernels[path].shape[0], 2), 0.1), np.full((2, kernels[path].shape[1]), 0.1)
    updates = unflatten_dict({(*path, "down"): down, (*path, "up"): up})
    encoder = {"func_align_layer": jax.tree.map(lambda x: 2 * x, layer)}
    monkeypatch.setattr(
        model, "restore_params", lambda folder, *, step: {"encoder": encoder, "lora": updates}
    )
    found = model.load_model(settings, step=1)
    assert found.generator == generator
    merged: dict[tuple, Any] = flatten_dict(found.denoiser)
    for name, kernel in merged.items():
        moved = 0.5 * 2 * 0.1 * 0.1 if name == path else 0
        np.testing.assert_allclose(kernel, kernels[name] + moved, rtol=0, atol=1e-7)
    jax.tree.map(
        np.testing.assert_array_equal,
        found.encoder.variables["params"]["func_align_layer"],
        encoder["func_align_layer"],
    )


def test_the_precision_of_sampling_is_one_of_its_settings(settings, tmp_path):
    validate_same_settings(open_test(settings), tmp_path, but=SCORING)
    half = open_test(config.overridden(settings, ["hardware.compute_dtype=bfloat16"]))
    with pytest.raises(
        InputError, match=r"\(now \| then\): hardware\.compute_dtype: bfloat16 \| float32;"
    ):
        validate_same_settings(half, tmp_path, but=SCORING)


def test_settings_of_an_earlier_version_count_as_far_as_they_go(settings, tmp_path):
    """They were written in sections, without the precision."""
    evaluation = settings.evaluation.model_dump(mode="json", exclude={*SCORING, "adapted_minutes"})
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"evaluation": evaluation, "test_subjects": ["03"], "steps": 2}))
    half = ["hardware.compute_dtype=bfloat16"]
    validate_same_settings(
        open_test(config.overridden(settings, half)), tmp_path, but=SCORING, keep=False
    )
    assert "hardware" not in path.read_text()
    for change, said in (
        ("evaluation.guidance_scale=2", "evaluation.guidance_scale: 2.0 | 9.0"),
        ("protocol.test_subjects=['02']", "test_subjects: ['02'] | ['03']"),
    ):
        other = open_test(config.overridden(settings, [*half, change]))
        with pytest.raises(InputError) as error:
            validate_same_settings(other, tmp_path, but=SCORING)
        assert f"(now | then): {said}; remove" in str(error.value)


def test_another_checkpoint_takes_the_place_of_the_first_in_the_same_program(settings, monkeypatch):
    test = open_test(settings)
    load, place = decoding.load_model, sampler.place_params

    def load_other(*given, step: int | None) -> model.Model:
        """Of step 1, with twice the parameters of the encoder."""
        found = load(*given)
        if step is None:
            return found
        doubled = jax.tree.map(lambda x: 2 * x, in_memory(found.encoder.variables))
        return found._replace(encoder=found.encoder._replace(variables=doubled))

    def place_alone(*given, **options):
        assert all(array() is None for array in on_device), "two models at a time"
        placed = place(*given, **options)
        on_device[:] = [weakref.ref(x) for x in jax.tree.leaves(placed)]
        return placed

    def videos(own: sampler.VideoSampler) -> np.ndarray:
        return test.decode(own, "03", [0, 1], scale=9.0, steps=2, seed=0)

    on_device: list[weakref.ref] = []
    monkeypatch.setattr(decoding, "load_model", load_other)
    monkeypatch.setattr(sampler, "place_params", place_alone)
    own = test.sampler()
    finished = videos(own)
    test.load(own, step=1)
    earlier = videos(own)
    assert (earlier != finished).any()
    test.load(own, step=None)
    np.testing.assert_array_equal(videos(own), finished)
    assert own.compiled() == 1
    on_device.clear()
    np.testing.assert_array_equal(videos(test.sampler(step=1)), earlier)
