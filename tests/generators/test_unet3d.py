"""The UNet3D pipeline as a generator: what it reads and writes, and its formulas."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.convert.pretrained import find_tokenizer, in_memory
from glfa_jax.errors import InputError
from glfa_jax.generators.unet3d import UNet3DGenerator
from tests.convert.test_pretrained import (
    assert_same,
    flip,
    params_of,
    rejection,
    write_text_to_video,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text-to-video")
    write_text_to_video(folder)
    return folder


@pytest.fixture(scope="module")
def generator(pipeline) -> UNet3DGenerator:
    return UNet3DGenerator.open(pipeline)


def load_whole(folder: Path) -> None:
    """All that training and sampling read of it."""
    generator = UNet3DGenerator.open(folder)
    find_tokenizer(folder)
    generator.load(), generator.load_codec(), generator.load_text_encoder()


def test_a_pipeline_loads_whole(pipeline):
    generator = UNet3DGenerator.open(pipeline)
    assert (generator.condition_width, generator.condition_tokens) == (12, 6)
    assert generator.training_steps == 100
    assert generator.codec_config["_class_name"] == "AutoencoderKL"
    assert_same(generator.load(), params_of("unet3d"))
    assert_same(generator.load_codec(), params_of("vae"))
    assert_same(generator.load_text_encoder().variables["params"], params_of("clip_text"))


@pytest.mark.parametrize(
    ("missing", "parts"),
    [
        ("scheduler", ("scheduler/scheduler_config.json: no such file",)),
        ("scheduler/scheduler_config.json", ("scheduler/scheduler_config.json: no such file",)),
        ("tokenizer", ("tokenizer: holds no tokenizer, must hold vocab.json and merges.txt",)),
        ("tokenizer/vocab.json", ("tokenizer: holds no tokenizer",)),
        ("tokenizer/merges.txt", ("tokenizer: holds no tokenizer",)),
        ("unet", ("unet/config.json: no such file",)),
        ("vae/config.json", ("vae/config.json: no such file",)),
        ("text_encoder/model.safetensors", ("text_encoder: holds no weights",)),
    ],
)
def test_what_a_pipeline_lacks_is_named(pipeline, missing, parts, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    gone = folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    message = rejection(lambda: load_whole(folder), str(folder), *parts)
    assert len(message.splitlines()) == 1


def test_a_schedule_that_is_not_implemented_is_rejected_with_its_file(pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "cubic"}))
    rejection(lambda: load_whole(folder), f"{path}: ", "beta_schedule", "cubic")


@pytest.mark.parametrize(
    "name",
    ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "text_encoder/config.json"],
)
def test_a_flipped_bit_in_a_saved_pipeline_is_rejected(pipeline, name, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    flip(folder / name)
    message = rejection(lambda: load_whole(folder), str(folder))
    assert "is not what was written" in message or "not valid JSON" in message
    assert len(message.splitlines()) == 1


def test_what_it_saves_is_loaded_again(generator, tmp_path):
    changed = jax.tree.map(lambda x: x + 1, in_memory(generator.load()))
    generator.save(changed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unet"]
    assert_same(generator.load(tmp_path), changed)
    theirs, ours = (folder / "unet" / "config.json" for folder in (generator.folder, tmp_path))
    assert json.loads(ours.read_text()) == json.loads(theirs.read_text())


def test_shapes_are_those_of_the_weights(generator):
    for shapes, params in (
        (generator.denoiser_shapes(), generator.load()),
        (generator.codec_shapes(), generator.load_codec()),
    ):
        assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(np.shape, params)


def test_latents_are_drawn_from_the_posterior_at_unit_scale(generator):
    codec, video = in_memory(generator.load_codec()), np.zeros((2, 3, 8, 6, 3), np.float32)
    video[1] = 0.5
    encoding = generator.encode(codec, video)
    shape = generator.latent_shape(3, 8, 6)
    assert encoding.shape == (2, *shape[:3], 2 * shape[3])
    key = jax.random.key(1)
    mean, log_variance = jnp.split(encoding, 2, axis=-1)
    normal = jax.random.normal(key, mean.shape)
    expected = 0.18215 * (mean + jnp.exp(0.5 * log_variance) * normal)
    drawn = generator.draw(encoding, key)
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    unscaled = generator.vae.apply({"params": codec}, drawn / 0.18215, method="decode")
    decoded = generator.decode(codec, drawn)
    assert decoded.shape == video.shape
    np.testing.assert_allclose(decoded, unscaled, rtol=1e-5, atol=1e-5)


def test_a_resolution_that_the_vae_cannot_halve_is_rejected(generator):
    message = rejection(lambda: generator.latent_shape(3, 8, 5), "data.resolution: (8, 5) must be")
    assert f"multiples of 2, the reduction of the VAE in {generator.folder}" in message


def test_options_of_stage_two_are_its_own(generator, pipeline, tmp_path):
    assert generator.as_trained(config.Cotrain()) == generator
    clean = jnp.zeros((2, 3, 4, 4, 4))
    key = jax.random.key(0)
    offset = generator.as_trained(config.Cotrain(offset_noise=2.0))
    extra = offset.noise(key, clean) - generator.noise(key, clean)
    assert (jnp.ptp(extra, axis=(1, 2, 3)) < 1e-5).all()
    assert jnp.abs(extra).min() > 1e-3

    stage = config.Cotrain(zero_terminal_snr=True)
    with pytest.raises(InputError, match=r"cotrain\.zero_terminal_snr: needs .* has epsilon"):
        generator.as_trained(stage)
    folder = shutil.copytree(pipeline, tmp_path / "velocity")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    velocity = UNet3DGenerator.open(folder).as_trained(stage)
    noise = generator.noise(key, clean)
    last = jnp.full(2, generator.training_steps - 1)
    np.testing.assert_array_equal(velocity.add_noise(clean + 7, noise=noise, t=last), noise)
    np.testing.assert_allclose(
        velocity.target(clean + 7, noise=noise, t=last), -(clean + 7), rtol=1e-6
    )


def test_times_are_whole_steps_of_training(generator):
    t = generator.times(jax.random.key(0), 5000)
    assert t.dtype == jnp.int32
    assert sorted(set(t.tolist())) == list(range(100))
