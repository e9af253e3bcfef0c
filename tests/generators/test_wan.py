"""The Wan pipeline as a generator: what it reads and writes, and its formulas."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from benchmarks import models
from benchmarks.models import TINY
from examples.simulated.t5_tokenizer import write_tokenizer
from glfa_jax import config, system
from glfa_jax.batch import Batch
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.errors import InputError
from glfa_jax.files import CHECKSUMS
from glfa_jax.generators.wan import WanGenerator
from glfa_jax.models.lora import init_lora
from glfa_jax.models.quantised import Quantised
from glfa_jax.stages import contrast, cotrain, lea
from glfa_jax.training.sharding import put_back, shapes_in
from tests.convert.test_pretrained import assert_same, rejection, write_text_to_video
from tests.stages.variants import FOUNDATION, settings_of

CHANNELS, WIDTH = 2, 12
TRANSFORMER = models.small_wan(
    heads=2, head=6, inner=20, layers=2, condition=WIDTH, channels=CHANNELS
)
VAE = models.small_wan_vae(2, channels=CHANNELS, num_res_blocks=1)
PARTS = {"transformer": ("wan", TRANSFORMER), "vae": ("wan_vae", VAE)}


def params_of(part: str) -> dict:
    return models.random_params(models.shapes_of(*PARTS[part]), std=0.2, scale=1.0)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """As diffusers stores it, of random weights, without a text encoder."""
    folder = tmp_path_factory.mktemp("foundation") / "text-to-video"
    for part, (kind, settings) in PARTS.items():
        pretrained.save(kind, folder / part, params_of(part), config=settings)
    (folder / "scheduler").mkdir()
    schedule = json.dumps(FlowSchedule(shift=3.0).to_config())
    (folder / "scheduler" / "scheduler_config.json").write_text(schedule)
    return folder


@pytest.fixture(scope="module")
def generator(pipeline) -> WanGenerator:
    return WanGenerator.open(pipeline)


def test_a_pipeline_loads_whole(generator):
    assert (generator.condition_width, generator.condition_tokens) == (WIDTH, 512)
    assert generator.training_steps == 1000
    assert generator.codec_config["_class_name"] == "AutoencoderKLWan"
    assert_same(generator.load(), params_of("transformer"))
    assert_same(generator.load_codec(), params_of("vae"))
    generator.validate_weights(model=None, text_encoder=False)
    rejection(
        lambda: generator.validate_weights(model=None, text_encoder=True),
        "text_encoder/config.json: no such file",
    )


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("transformer/config.json", {"image_dim": 1280}, ("image_dim", "from images")),
        ("transformer/config.json", {"in_channels": 36}, ("in_channels is 36", "from images")),
        ("transformer/config.json", {"_class_name": "UNet3DConditionModel"}, ("of the class",)),
        (
            "transformer/config.json",
            {"in_channels": 4, "out_channels": 4},
            ("latents of 4 channels", "those of vae have 2"),
        ),
        ("vae/config.json", {"is_residual": True}, ("vae", "Wan 2.2")),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "DDIMScheduler"},
            ("of the class DDIMScheduler", "UniPCMultistepScheduler"),
        ),
    ],
)
def test_another_pipeline_is_one_sentence(pipeline, name, changes, parts, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    for path in folder.rglob(CHECKSUMS):
        path.unlink()
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    message = rejection(lambda: WanGenerator.open(folder), str(folder), *parts)
    assert len(message.splitlines()) == 1


def test_a_pipeline_of_two_transformers_is_one_sentence(pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    (folder / "transformer_2").mkdir()
    rejection(lambda: WanGenerator.open(folder), f"{folder / 'transformer_2'}: a second", "Wan 2.1")


@pytest.fixture(scope="module")
def study(pipeline, tmp_path_factory) -> config.Config:
    """A run's configuration with this generator; its foundation has what a step's size needs."""
    shutil.copytree(FOUNDATION / "clip", pipeline.parent / "clip")
    run_dir = tmp_path_factory.mktemp("run")
    store: Any = SimpleNamespace(
        path=run_dir / "store.zarr", attributes=SimpleNamespace(subjects=("01", "02", "03"))
    )
    return config.overridden(
        settings_of(run_dir, store),
        [
            *("generator=wan", f"foundation={pipeline.parent}"),
            *("data.frames=5", "data.resolution=[16,32]"),
            *("cotrain.batch_size=2", "conditioning.tokens=7"),
        ],
    )


def test_a_folder_of_another_generator_is_one_sentence(study, pipeline, tmp_path):
    with pytest.raises(InputError, match=r"holds no generator unet3d .* generator: wan") as error:
        system.generator(config.overridden(study, ["generator=unet3d"]))
    assert str(pipeline) in str(error.value)
    write_text_to_video(tmp_path / "text-to-video")
    with pytest.raises(InputError, match=r"holds no generator wan .* generator: unet3d"):
        system.generator(config.overridden(study, [f"foundation={tmp_path}"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.frames=8", r"data\.frames: 8, must be a multiple of 4 and one more"),
        ("data.resolution=[24,32]", r"data\.resolution: \(24, 32\) must be multiples of 16"),
        ("cotrain.offset_noise=0.1", r"cotrain\.offset_noise: 0\.1, .* generator wan"),
        ("cotrain.zero_terminal_snr=true", r"cotrain\.zero_terminal_snr: True, "),
        ("cotrain.temporal_dropout=0.1", r"cotrain\.temporal_dropout: 0\.1, "),
        ("evaluation.sampler=dpm++", "evaluation.sampler: must be 'unipc' or 'euler'"),
        ("evaluation.sampling_steps=1000", "must be below the 1000 of training"),
        ("hardware.mesh.frame=5", r"hardware\.mesh\.frame: 5 is no divisor of the 2 frames of lat"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(study, change, said):
    system.check_generator(study)
    with pytest.raises(InputError, match=said) as error:
        system.check_generator(config.overridden(study, [change]))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("frozen", [None, "int8", "nf4"])
def test_a_step_of_stage_two_trains_encoder_and_lora(study, frozen):
    """Traced, not compiled: that the parts fit each other."""
    step = cotrain.step_of(config.overridden(study, [f"cotrain.frozen_kernels={frozen or 'null'}"]))
    assert sorted(step.params) == ["encoder", "lora"]
    assert sorted(put_back(step.frozen["fixed"])) == ["encoder", "transformer"]
    # As many tokens as configured, of the generator's width, by an encoder of another.
    assert study.encoder.width != WIDTH
    mapper = step.params["encoder"]["fmri_encoder_proj"]["cond_state_transform"]
    assert mapper["channel_mapper.1"]["kernel"].shape[-1] == 7
    assert mapper["fc"]["kernel"].shape == (WIDTH, WIDTH)

    def gradients(params: dict, frozen: Any, batch: Batch) -> dict:
        loss = lambda p: step.loss_fn(p, frozen, batch, jax.random.key(0))[0]  # noqa: E731
        return jax.grad(loss)(params)

    found = jax.eval_shape(gradients, step.params, step.frozen, step.batch)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, step.params)


def test_what_is_exact_keeps_32_bits(study):
    step = cotrain.step_of(study)
    kept = put_back(shapes_in(step.frozen["fixed"], jnp.bfloat16))
    leaves = {"/".join(path): x.dtype for path, x in flatten_dict(kept["transformer"]).items()}
    exact = {path for path, dtype in leaves.items() if dtype == jnp.float32}
    assert {"blocks.*/norm2/scale", "blocks.*/scale_shift_table", "scale_shift_table"} < exact
    assert not [path for path in exact if "/to_q/" in path or "norm_q" in path]
    assert {x.dtype for x in jax.tree.leaves(kept["encoder"])} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("trainable", ["lora", "attention"])
def test_kernels_that_do_not_train_are_rounded(study, trainable):
    """Their scales keep 32 bits; nothing but kernels is rounded."""
    change = [f"cotrain.trainable={trainable}", "cotrain.frozen_kernels=int8"]
    step = cotrain.step_of(config.overridden(study, change))
    kept = put_back(shapes_in(step.frozen["fixed"], jnp.bfloat16))
    for path, x in flatten_dict(kept["transformer"]).items():
        name = "/".join(path)
        of_blocks = name.startswith("blocks.") and path[-1] == "kernel"
        assert isinstance(x, Quantised) == of_blocks, name
        if of_blocks:
            assert "/ffn" in name or trainable == "lora"
            values, scales = jax.tree.leaves(x)
            assert (values.dtype, scales.dtype) == (jnp.int8, jnp.float32)


@pytest.fixture(scope="module")
def of_captions(pipeline, study) -> config.Config:
    """Stage 1 compares with tokens of captions; the text encoder makes as many as it is asked."""
    text = TINY["umt5_text"] | {"d_model": WIDTH, "d_kv": 6}
    params = models.random_params(models.shapes_of("umt5_text", text), std=0.2, scale=1.0)
    pretrained.save("umt5_text", pipeline / "text_encoder", params, config=text)
    write_tokenizer(["a red ball"], pipeline / "tokenizer", max_length=99)
    return config.overridden(study, ["contrast.token_scale=1"])


def test_captions_have_as_many_tokens_as_conditions(of_captions, pipeline):
    generator = system.check_generator(of_captions)
    generator.validate_weights(model=None, text_encoder=True)
    tokenizer = system.caption_tokenizer(of_captions, generator)
    tokens = tokenizer(["a red ball", "ball " * 9])
    assert tokens.tolist() == [[3, 5, 4, 1, 0, 0, 0], [4] * 6 + [1]]
    text = in_memory(generator.load_text_encoder(compute_dtype=np.float32))
    hidden = np.asarray(jax.jit(text.module.apply)(text.variables, tokens).hidden)
    assert hidden.shape == (2, 7, WIDTH)
    assert (hidden.any(-1) == (tokens != 0)).all()
    # CLIP reads captions by a tokenizer of its own.
    assert system.tokenizer(of_captions).folder == pipeline.parent / "clip"


def test_a_step_of_stage_one_compares_with_captions(of_captions):
    """Traced, not compiled."""
    step = contrast.step_of(of_captions)
    assert step.frozen["captions"].shape == step.frozen["weights"].shape == (1024, 7)
    loss = lambda p, f, b: step.loss_fn(p, f, b, jax.random.key(0))  # noqa: E731
    _, metrics = jax.eval_shape(loss, step.params, step.frozen, step.batch)
    assert metrics["tokens"].shape == ()


def test_targets_of_lea_are_tokens_of_captions(of_captions):
    settings = config.overridden(of_captions, ["method=lea"])
    system.check_generator(settings)
    video = np.random.default_rng(0).integers(256, size=(2, 5, 16, 32, 3), dtype=np.uint8)
    attributes = SimpleNamespace(captions={"train": ["a red ball", "ball"]})
    store: Any = SimpleNamespace(attributes=attributes, video=lambda split, clips: video[clips])
    found = lea.Targets(settings, store).of(np.array([1, 0]))
    tokens = found[:, : 7 * WIDTH].reshape(2, 7, WIDTH)
    assert tokens.any(-1).sum(1).tolist() == [2, 4]


def test_a_generator_may_lie_outside_its_foundation(study, pipeline, tmp_path):
    elsewhere = shutil.copytree(pipeline, tmp_path / "mine")
    changes = ["foundation=nowhere", f"generator_folder={elsewhere}"]
    found = system.generator(config.overridden(study, changes))
    assert found.folder == elsewhere


def test_what_it_saves_is_loaded_again(generator, tmp_path):
    changed = jax.tree.map(lambda x: x + 1, in_memory(generator.load()))
    generator.save(changed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["transformer"]
    assert_same(generator.load(tmp_path), changed)
    generator.validate_weights(model=tmp_path, text_encoder=False)


def test_what_it_exports_opens_alone(generator, tmp_path):
    denoiser, codec = in_memory(generator.load()), in_memory(generator.load_codec())
    generator.export(denoiser, codec, tmp_path)
    again = WanGenerator.open(tmp_path)
    assert again == WanGenerator(tmp_path, generator.transformer, generator.vae, generator.schedule)
    assert_same(again.load(), denoiser)
    assert_same(again.load_codec(), codec)


def test_shapes_are_those_of_the_weights(generator):
    for shapes, params in (
        (generator.denoiser_shapes(), generator.load()),
        (generator.codec_shapes(), generator.load_codec()),
    ):
        assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(np.shape, params)


def test_lora_is_of_attention_and_feed_forward_in_every_block(generator):
    """Queries, keys, values and outputs of both attentions, both layers of the feed-forward."""
    chosen = generator.trainable["lora"]
    found = init_lora(
        in_memory(generator.load()), patterns=chosen.patterns, rank=2, key=jax.random.key(0)
    )
    assert len(jax.tree.leaves(found)) == 2 * 2 * (4 + 4 + 2)


def test_as_many_frames_of_latents_as_the_autoencoder_makes(generator):
    frames = [generator.latent_shape(frames, 16, 16)[0] for frames in (1, 5, 13)]
    assert frames == [1, 2, 4]
    whole = replace(generator, vae=generator.vae.clone(temperal_downsample=(False,) * 3))
    assert [whole.latent_shape(frames, 16, 16)[0] for frames in (1, 6)] == [1, 6]


def test_latents_are_drawn_from_the_posterior_at_unit_scale(generator):
    codec = in_memory(generator.load_codec())
    video = np.random.default_rng(0).uniform(-1, 1, (2, 5, 16, 16, 3)).astype(np.float32)
    encoding = jax.jit(generator.encode)(codec, video)
    shape = generator.latent_shape(5, 16, 16)
    assert shape == (2, 2, 2, CHANNELS)
    assert encoding.shape == (2, *shape[:3], 2 * shape[3])
    key = jax.random.key(1)
    mean, log_variance = jnp.split(encoding, 2, axis=-1)
    normal = jax.random.normal(key, mean.shape)
    raw = mean + jnp.exp(0.5 * log_variance) * normal
    expected = (raw - np.float32(VAE["latents_mean"])) / np.float32(VAE["latents_std"])
    drawn = generator.draw(encoding, key)
    np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)
    decoded = jax.jit(generator.decode)(codec, drawn)
    assert decoded.shape == video.shape
    unscaled = jax.jit(lambda x: generator.vae.apply({"params": codec}, x, method="decode"))(raw)
    np.testing.assert_allclose(decoded, unscaled, rtol=0, atol=1e-4)


def test_times_are_those_that_the_flow_reads(generator):
    t = generator.times(jax.random.key(0), 1000)
    assert t.dtype == jnp.float32
    assert 0 < t.min() < 300 < 900 < t.max() < 1000
    assert (t == generator.schedule.times(jax.random.key(0), 1000)).all()
    clean = jnp.ones((3, 2, 2, 2, CHANNELS))
    noise = generator.noise(jax.random.key(1), clean)
    given = jnp.array([0.0, 500.0, 1000.0])
    noisy = generator.add_noise(clean, noise=noise, t=given)
    share = (given / 1000)[:, None, None, None, None]
    target = generator.target(clean, noise=noise, t=given)
    np.testing.assert_allclose(noisy - share * target, clean, rtol=0, atol=1e-6)


def test_one_time_for_all_is_that_time_for_each(generator):
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, 2, 2, 4, CHANNELS), np.float32)
    condition = rng.standard_normal((2, 5, WIDTH), np.float32)
    params, denoise = in_memory(generator.load()), jax.jit(generator.denoise)
    one = denoise(params, latents, jnp.float32(437.5), condition)
    each = denoise(params, latents, jnp.full(2, 437.5), condition)
    np.testing.assert_allclose(one, each, rtol=1e-5, atol=1e-5)
    other = denoise(params, latents, jnp.array([437.5, 12.25]), condition)
    np.testing.assert_allclose(other[0], one[0], rtol=1e-5, atol=1e-5)
    assert np.abs(other[1] - one[1]).max() > 1e-3
