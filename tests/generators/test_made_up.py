"""A generator that this file makes up trains and samples through the ordinary code.

It shares with UNet3D nothing but the protocol: a linear map of every latent pixel as denoiser, a
flow (numbers as times, velocity as target) in place of a diffusion, a codec that halves pixels and
takes four frames into one after a first one that stands alone, files of its own.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

import glfa_jax
from benchmarks import models
from glfa_jax import config, start_from, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained, in_memory
from glfa_jax.data.store import Split, Store
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import open_test
from glfa_jax.generators import GENERATORS, Trainable, register
from glfa_jax.generators.protocol import Condition, Encoding, Latents, Video
from glfa_jax.stages import cotrain, latents
from glfa_jax.trained.model import Model, load_model
from glfa_jax.training.logs import read_log
from glfa_jax.training.loop import keep_config
from tests import stores
from tests.stages.tiny import SIDE, WIDTH, WINDOW
from tests.stages.variants import FOUNDATION, settings_of

FRAMES, TOKENS, CHANNELS = 9, 7, 3


@register("made up")
@dataclass(frozen=True)
class MadeUp:
    folder: Path
    dtype: DTypeLike = jnp.float32

    part: ClassVar[str] = "pixels"
    trainable: ClassVar[Mapping[str, Trainable]] = {
        "mixing": Trainable((r"mix/kernel$",)),
        "low rank": Trainable((r"/kernel$",), low_rank=True),
    }
    samplers: ClassVar[tuple[str, ...]] = ("euler",)
    exact: ClassVar[tuple[str, ...]] = ("read",)
    equal: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {
        "cotrain.trainable": "mixing",
        "evaluation.sampler": "euler",
    }

    @classmethod
    def open(cls, folder: Path) -> Self:
        if not (folder / "made_up.json").is_file():
            raise InputError(f"{folder}: holds no made_up.json")
        return cls(folder)

    def as_trained(self, stage: config.Cotrain) -> Self:
        if stage.offset_noise or stage.zero_terminal_snr:
            raise InputError("cotrain.offset_noise, cotrain.zero_terminal_snr: unknown to a flow")
        if stage.temporal_dropout:
            raise InputError("cotrain.temporal_dropout: there are no such convolutions")
        return self

    def computing(self, *, dtype: DTypeLike, remat: bool = False) -> Self:
        return type(self)(self.folder, dtype)

    @property
    def condition_width(self) -> int:
        return WIDTH

    @property
    def condition_tokens(self) -> int:
        return TOKENS

    @property
    def longest_caption(self) -> int:
        return TOKENS

    @property
    def training_steps(self) -> int:
        return 100

    @property
    def codec_config(self) -> Mapping[str, Any]:
        return json.loads((self.folder / "made_up.json").read_text())

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        if frames % 4 != 1 or height % 2 or width % 2:
            raise InputError(f"data.frames: {frames}, must be a multiple of 4 and one more")
        return 1 + frames // 4, height // 2, width // 2, CHANNELS

    def denoiser_shapes(self) -> dict:
        def kernel(rows: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, CHANNELS), jnp.float32)

        return {"mix": {"kernel": kernel(CHANNELS)}, "read": {"kernel": kernel(WIDTH)}}

    def codec_shapes(self) -> dict:
        return {"gain": jax.ShapeDtypeStruct((), jnp.float32)}

    def validate_weights(self, *, model: Path | None, text_encoder: bool) -> None:
        assert not text_encoder
        if not (path := (model or self.folder) / self.part / "kernels.npz").is_file():
            raise InputError(f"{path}: no such file")

    def load(self, model: Path | None = None) -> dict:
        with np.load((model or self.folder) / self.part / "kernels.npz") as arrays:
            return {name: {"kernel": arrays[name]} for name in ("mix", "read")}

    def save(self, denoiser: dict, model: Path) -> None:
        (model / self.part).mkdir(parents=True)
        kernels = {name: x["kernel"] for name, x in denoiser.items()}
        np.savez(model / self.part / "kernels.npz", **kernels)

    def export(self, denoiser: dict, codec: dict, folder: Path) -> None:
        self.save(denoiser, folder)
        (folder / "made_up.json").write_text(json.dumps(self.codec_config))

    def load_codec(self) -> dict:
        return {"gain": np.float32(2)}

    def load_text_encoder(self, *, compute_dtype: DTypeLike) -> Pretrained:
        def apply(_: dict, tokens: jax.Array) -> SimpleNamespace:
            return SimpleNamespace(hidden=jnp.ones((*tokens.shape, WIDTH), compute_dtype))

        return Pretrained(SimpleNamespace(apply=apply), {})

    def text_encoder_shapes(self, *, compute_dtype: DTypeLike) -> Pretrained:
        return self.load_text_encoder(compute_dtype=compute_dtype)

    def encode(self, codec: dict, video: Video) -> Encoding:
        b, f, h, w, c = video.shape
        small = video.reshape(b, f, h // 2, 2, w // 2, 2, c).mean((3, 5))
        later = small[:, 1:].reshape(b, f // 4, 4, *small.shape[2:]).mean(2)
        return codec["gain"] * jnp.concatenate([small[:, :1], later], axis=1)

    def draw(self, encoding: Encoding, key: Key[Array, ""]) -> Latents:
        return encoding

    def decode(self, codec: dict, latents: Latents) -> Video:
        large = jnp.repeat(jnp.repeat(latents / codec["gain"], 2, axis=2), 2, axis=3)
        return jnp.concatenate([large[:, :1], jnp.repeat(large[:, 1:], 4, axis=1)], axis=1)

    def times(self, key: Key[Array, ""], clips: int) -> Float[Array, " b"]:
        return jax.random.uniform(key, (clips,))

    def noise(self, key: Key[Array, ""], clean: Latents) -> Latents:
        return jax.random.normal(key, clean.shape)

    def add_noise(self, clean: Latents, *, noise: Latents, t: Num[Array, " b"]) -> Latents:
        t = t[:, None, None, None, None]
        return (1 - t) * clean + t * noise

    def target(self, clean: Latents, *, noise: Latents, t: Num[Array, " b"]) -> Latents:
        return noise - clean

    def denoise(
        self, denoiser: dict, latents: Latents, t: Num[Array, "*b"], condition: Condition
    ) -> Latents:
        assert condition.shape[1:] == (TOKENS, WIDTH)
        assert t.dtype == jnp.float32
        seen = condition.mean(1) @ denoiser["read"]["kernel"]
        moved = latents.astype(self.dtype) @ denoiser["mix"]["kernel"]
        return moved + seen[:, None, None, None] + jnp.reshape(t, (-1, 1, 1, 1, 1))

    def sample(
        self, denoise: Callable[[Latents, Any], Latents], noise: Latents, *, steps: int, method: str
    ) -> Latents:
        assert method == "euler"
        times = jnp.linspace(1, 0, steps, endpoint=False)
        step = lambda x, t: (x - denoise(x, t) / steps, None)  # noqa: E731
        return jax.lax.scan(step, noise, times)[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    rng = np.random.default_rng(0)
    counts: dict[Split, int] = {"train": 8, "test": 4}
    return stores.write_store(
        tmp_path_factory.mktemp("store") / "store.zarr",
        identity="made up",
        mask=np.ones((SIDE, SIDE), bool),
        videos={
            split: rng.integers(256, size=(clips, FRAMES, 8, 8, 3), dtype=np.uint8)
            for split, clips in counts.items()
        },
        maps={
            subject: {
                split: rng.standard_normal((clips, WINDOW, SIDE, SIDE)).astype(np.float16)
                for split, clips in counts.items()
            }
            for subject in ("01", "02", "03")
        },
    )


@pytest.fixture(scope="module")
def foundation(tmp_path_factory) -> Path:
    """The made-up generator beside the simulated world's evaluation models."""
    folder = tmp_path_factory.mktemp("foundation")
    for name in ("clip", "image-classifier"):
        shutil.copytree(FOUNDATION / name, folder / name)
    place = folder / "video-classifier"
    shutil.copytree(FOUNDATION / "video-classifier", place)
    video = json.loads((place / "config.json").read_text())
    any_frames = video | {"tubelet_size": 1}
    params = models.random_params(models.shapes_of("video_mae", any_frames))
    pretrained.save("video_mae", place, params, config=any_frames)
    shutil.copytree(FOUNDATION / "text-to-video" / "tokenizer", folder / "text-to-video/tokenizer")
    (folder / "text-to-video" / "made_up.json").write_text("{}")
    rng = np.random.default_rng(1)
    shapes = MadeUp.open(folder / "text-to-video").denoiser_shapes()
    kernels = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)
    MadeUp(folder).save(kernels, folder / "text-to-video")
    return folder


def configured(run_dir: Path, store: Store, foundation: Path, *changes: str) -> config.Config:
    settings = settings_of(run_dir, store, without=("contrast", "pretrain"))
    return config.overridden(
        settings,
        [
            *("generator=made up", f"foundation={foundation}"),
            *(f"data.frames={FRAMES}", "data.resolution=[8,8]"),
            *("cotrain.steps=2", "cotrain.batch_size=4", "cotrain.learning_rate=0.01"),
            *("evaluation.batch_size=2", "evaluation.ways=[2]"),
            *changes,
        ],
    )


def losses(settings: config.Config) -> list[float]:
    return [line["metrics"]["loss"] for line in read_log(settings.run_dir / "cotrain")]


@pytest.fixture(scope="module", params=["mixing", "low rank"])
def trained(request, tmp_path_factory, store, foundation) -> config.Config:
    """Two steps of stage 2."""
    change = [f"cotrain.trainable={request.param}", "cotrain.log_every=1"]
    settings = configured(tmp_path_factory.mktemp("run"), store, foundation, *change)
    system.check_foundation(settings)
    cotrain.run(settings, store)
    return settings


def decoder_of(settings: config.Config, *, step: int | None = None) -> Model:
    return in_memory(load_model(settings, step=step))


def test_what_it_names_trains_and_nothing_else(trained):
    assert np.isfinite(losses(trained)).all()
    assert len(losses(trained)) == 2
    before, after = system.generator(trained).load(), decoder_of(trained).denoiser
    moved = {name for name in before if (before[name]["kernel"] != after[name]["kernel"]).any()}
    both = trained.cotrain.trainable == "low rank"
    assert moved == ({"mix", "read"} if both else {"mix"})
    assert decoder_of(trained).encoder.module.tokens == TOKENS
    assert (system.model_folder(trained, "cotrain") / "pixels" / "kernels.npz").is_file()


def test_a_checkpoint_is_the_finished_model(trained):
    finished, restored = decoder_of(trained), decoder_of(trained, step=2)
    jax.tree.map(np.testing.assert_array_equal, finished.denoiser, restored.denoiser)
    jax.tree.map(
        np.testing.assert_array_equal, finished.encoder.variables, restored.encoder.variables
    )


def test_it_samples_what_its_flow_says(trained):
    test = open_test(trained)
    sampler = test.sampler()
    found = test.decode(sampler, "03", [0, 1], scale=1.0, steps=3, seed=5)
    assert found.shape == (2, FRAMES, 8, 8, 3)
    assert found.dtype == np.uint8

    decoder, generator = decoder_of(trained), system.generator(trained)
    fmri = test.maps("03", [0, 1]).astype(np.float32)
    encoded: Any = decoder.encoder.module.apply(decoder.encoder.variables, fmri)
    shape = generator.latent_shape(FRAMES, 8, 8)
    assert shape == (3, 4, 4, CHANNELS)
    root = jax.random.key(5)
    x = jnp.stack([jax.random.normal(jax.random.fold_in(root, i), shape) for i in (0, 1)])
    for t in jnp.float32([1, 2 / 3, 1 / 3]):
        x = x - generator.denoise(decoder.denoiser, x, t, encoded.condition) / 3
    video = (np.clip(generator.decode(decoder.codec, x), -1, 1) + 1) * 127.5
    np.testing.assert_allclose(found, video, rtol=0, atol=0.51)
    assert len(np.unique(found)) > 50


def test_what_is_exported_decodes_alone(trained, store, tmp_path):
    keep_config(trained.run_dir, trained)
    decoder = glfa_jax.load(trained.run_dir)
    maps = store.fmri("test", [0, 1], subjects=["03"])[:, 0]
    video = decoder.decode(maps, subject="03", steps=3)
    folder = decoder.export(tmp_path / "out")
    again = glfa_jax.load(folder)
    np.testing.assert_array_equal(again.decode(maps, subject="03", steps=3), video)


def test_a_model_trained_elsewhere_is_decoded_with_as_it_is(
    trained, store, foundation, tmp_path, capsys
):
    """The shortest way: stage 2 of no steps, from its encoder and its generator."""
    released = shutil.copytree(system.model_folder(trained, "cotrain"), tmp_path / "released")
    own = configured(tmp_path / "own", store, foundation, "without=[]")
    settings = config.overridden(
        own,
        [
            *(f"cotrain.encoder_from={released / 'encoder'}", "cotrain.steps=0"),
            f"cotrain.generator_from={released}",
        ],
    )
    system.check_foundation(settings)
    for _ in range(2):
        cotrain.run(settings, store)
    said = capsys.readouterr().out
    assert said.count("== cotrain: nothing is trained, the model is taken as it is given") == 1
    assert said.count("cotrain: finished already, step 0") == 1
    assert not (settings.run_dir / "pretrain").exists()
    told = start_from.told(settings, "cotrain")
    assert told.keys() == {"encoder_from", "generator_from"}
    shutil.rmtree(released)
    keep_config(settings.run_dir, settings)
    maps = store.fmri("test", [0, 1], subjects=["03"])[:, 0].astype(np.float32)
    keep_config(trained.run_dir, trained)
    videos = [
        glfa_jax.load(run.run_dir).decode(maps, subject="03", steps=3, seed=5, guidance_scale=2.0)
        for run in (trained, settings)
    ]
    np.testing.assert_array_equal(*videos)
    system.check_foundation(settings)
    assert open_test(settings).clips("03")


def test_stage_two_starts_from_a_generator_trained_elsewhere(trained, store, foundation, tmp_path):
    """And a checkpoint of it is the finished model, the frozen rest as it was given."""
    released = system.model_folder(trained, "cotrain")
    changes = (
        f"cotrain.generator_from={released}",
        f"cotrain.trainable={trained.cotrain.trainable}",
    )
    settings = configured(tmp_path, store, foundation, *changes, "cotrain.learning_rate=1e-9")
    cotrain.run(settings, store)
    before, after = decoder_of(trained).denoiser, decoder_of(settings).denoiser
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after)
    again = decoder_of(settings, step=2).denoiser
    jax.tree.map(np.testing.assert_array_equal, after, again)


def test_kept_encodings_train_as_video_does(store, foundation, tmp_path):
    path = shutil.copytree(store.path, tmp_path / "store.zarr")
    own, change = Store.open(path), ["cotrain.log_every=1", "data.latents=true"]
    with_video = configured(tmp_path / "video", own, foundation, *change[:1])
    kept = configured(tmp_path / "kept", own, foundation, *change)
    for settings in (with_video, kept):
        cotrain.run(settings, Store.open(path))
    assert Store.open(path).latents("train", [0]).shape == (1, 3, 4, 4, CHANNELS)
    np.testing.assert_allclose(losses(kept), losses(with_video), rtol=1e-5)
    with pytest.raises(InputError, match="made with another VAE"):
        latents.keep(Store.open(path), MadeUp(tmp_path), {"gain": 1.0}, codec_identity="other")


def test_its_step_is_compiled_from_its_shapes(store, foundation, tmp_path, capsys):
    for change in ("data.latents=true", "cotrain.trainable=low rank"):
        settings = configured(tmp_path, store, foundation, change)
        cotrain.compile_only(settings, "here", tmp_path / "report.json")
        assert json.loads((tmp_path / "report.json").read_text())["operations"] > 1000
        assert "fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.frames=8", r"data\.frames: 8, must be a multiple of 4 and one more"),
        (
            "cotrain.trainable=attention",
            "cotrain.trainable: must be 'mixing' or 'low rank' with .*'att",
        ),
        ("cotrain.offset_noise=0.1", "cotrain.offset_noise, .* unknown to a flow"),
        (
            "evaluation.sampler=ddim",
            "evaluation.sampler: must be 'euler' with the generator made",
        ),
        ("evaluation.sampling_steps=100", "evaluation.sampling_steps: 100, must be below the 100"),
        ("generator=sora", "generator: 'sora' is no generator, must be one of .*made up.*unet3d"),
        ("generator=unet3d", "holds no generator unet3d .* but one that generator: made up reads"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(store, foundation, tmp_path, change, said):
    settings = configured(tmp_path, store, foundation)
    system.check_foundation(settings)
    wrong = config.overridden(settings, [change])
    for call in (system.check_foundation, lambda x: cotrain.compile_only(x, "here", None)):
        with pytest.raises(InputError, match=said) as error:
            call(wrong)
        assert len(str(error.value).splitlines()) == 1


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="generator 'made up': is registered already"):
        register("made up")(MadeUp)


def test_a_class_without_all_of_the_protocol_is_not_registered():
    left_out = {"export", "samplers", "__dict__", "__weakref__"}
    members = {name: x for name, x in vars(MadeUp).items() if name not in left_out}
    said = r"^generator 'half': lacks export, samplers of the protocol \(generators/protocol\.py\)$"
    with pytest.raises(ValueError, match=said):
        register("half")(type("Half", (), members))
    assert "half" not in GENERATORS
