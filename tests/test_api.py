"""The library: what it gives equals what the commands give, and it says what it cannot take."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import glfa_jax
from glfa_jax import config, system
from glfa_jax.alignments import load_encoder, save_encoder
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.errors import TrainingError
from glfa_jax.evaluation.decoding import open_test
from glfa_jax.method import training_words
from glfa_jax.stages import adapt
from tests.evaluation import tiny_run
from tests.evaluation.tiny_run import finished, write_store
from tests.stages import tiny
from tests.stores import CLIP_SECONDS

ROOT = Path(__file__).parents[1]
CLIPS = [1, 3]


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> config.Config:
    return finished(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def decoder(settings) -> glfa_jax.Decoder:
    return glfa_jax.load(settings.run_dir)


@pytest.fixture(scope="module")
def store(settings) -> glfa_jax.Store:
    return glfa_jax.Store.open(settings.data.store)


@pytest.fixture(scope="module")
def maps(store) -> np.ndarray:
    return store.fmri("test", CLIPS, subjects=["03"])[:, 0]


@pytest.fixture(scope="module")
def video(decoder, maps) -> np.ndarray:
    return decoder.decode(maps, subject="03", clips=CLIPS)


@pytest.fixture(scope="module")
def exported(decoder, tmp_path_factory) -> Path:
    return decoder.export(tmp_path_factory.mktemp("exported") / "tiny")


def test_the_public_names_are_listed_and_documented():
    assert set(glfa_jax.__all__) <= set(dir(glfa_jax))
    for name in glfa_jax.__all__:
        assert getattr(glfa_jax, name).__doc__, name
    public = (name for name in vars(glfa_jax.Decoder) if not name.startswith("_"))
    assert all(getattr(glfa_jax.Decoder, name).__doc__ for name in public)


def test_a_run_decodes_as_the_command_does(settings, video):
    """The command may change the amplitude of test maps first (`evaluation.test_maps`)."""
    settings = config.overridden(settings, ["evaluation.test_maps=averaged"])
    test, evaluation = open_test(settings), settings.evaluation
    sampled = test.decode(
        test.sampler(),
        "03",
        CLIPS,
        scale=evaluation.guidance_scale,
        steps=evaluation.sampling_steps,
        seed=settings.seed,
    )
    np.testing.assert_array_equal(video, sampled)
    assert video.dtype == np.uint8
    assert video.shape == (2, settings.data.frames, *settings.data.resolution, 3)


def test_a_clips_noise_is_its_own(decoder, maps, video):
    alone = decoder.decode(maps[1:], subject="03", clips=CLIPS[1:])
    np.testing.assert_array_equal(alone, video[1:])
    other = decoder.decode(maps[1:], subject="03", clips=[0])
    assert (other != alone).any()
    assert (decoder.decode(maps[1:], subject="03", clips=CLIPS[1:], seed=7) != alone).any()


def test_maps_are_aligned_and_encoded(decoder, maps):
    aligned = decoder.align(maps, subject="03")
    assert aligned.shape == maps.shape
    assert np.abs(aligned - maps).max() > 0
    # One layer serves all, somebody new too.
    np.testing.assert_array_equal(aligned, decoder.align(maps))
    np.testing.assert_allclose(aligned[0, 0], decoder.align(maps[0, 0]), rtol=1e-5, atol=1e-6)
    tokens = decoder.encode(maps)
    assert tokens.shape == (2, decoder.model.encoder.module.tokens, decoder.settings.encoder.width)
    assert np.isfinite(tokens).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda maps: maps[0], r"maps: \(\d+, \d+, \d+\), must be \(clips, "),
        (lambda maps: maps[:0], r"maps: \(0, .*, must be \(clips, "),
        (lambda maps: maps[..., 1:], r"maps: .*, must end in .* window and map_size"),
        (lambda maps: maps[:, 1:], r"maps: .*, must end in "),
        (lambda maps: maps * np.inf, "maps: hold values that are not finite"),
        (lambda maps: maps.astype(str), "maps: hold <U.*, must hold numbers"),
    ],
)
def test_maps_of_another_kind_are_a_sentence(decoder, maps, change, sentence):
    for call in (decoder.decode, decoder.encode):
        with pytest.raises(glfa_jax.InputError, match=sentence):
            call(change(maps.astype(np.float32)), subject="03")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"subject": "3"}, "subject 3: is none of this decoder's, 01, 02, 03; leave subject out"),
        ({"clips": [1]}, "clips: must be 2 whole numbers"),
        ({"clips": [0.5, 1]}, "clips: must be 2 whole numbers"),
        ({"steps": 0}, "evaluation.sampling_steps: .* greater than 0"),
        ({"steps": 10**6}, "steps: 1000000, must be below the 1000 of training"),
        ({"guidance_scale": float("nan")}, "evaluation.guidance_scale: .* finite"),
        ({"seed": -1}, "seed: .* greater than or equal to 0"),
    ],
)
def test_options_that_cannot_be_are_a_sentence(decoder, maps, options, sentence):
    with pytest.raises(glfa_jax.InputError, match=sentence):
        decoder.decode(maps, **({"subject": "03"} | options))


def test_folders_that_hold_no_decoder_are_named(tmp_path, settings):
    with pytest.raises(glfa_jax.InputError, match="absent: no such folder; must be a run"):
        glfa_jax.load(tmp_path / "absent")
    with pytest.raises(glfa_jax.InputError, match=r"holds no config\.yaml of a run"):
        glfa_jax.load(tmp_path)
    shutil.copy(settings.run_dir / "config.yaml", tmp_path)
    said = f"{tmp_path}: stage 2 is not finished; run python -m train.cotrain with this"
    with pytest.raises(glfa_jax.InputError, match=re.escape(said)):
        glfa_jax.load(tmp_path)


# --- which cortex it rests on ---


def test_contributions_of_maps_are_those_of_the_decoder(decoder, maps, store):
    average = store.average(subjects=["01", "02"])
    number = np.arange(maps[0, 0].size).reshape(maps.shape[2:]) % 2
    found = decoder.contributions(maps, subject="03", average=average, areas=number)
    assert found.gradient.shape == (2, *maps.shape[2:])
    assert (found.occlusion.shape, found.areas.names) == ((2, 2), ("0", "1"))
    np.testing.assert_allclose(found.full, 1, rtol=1e-5)
    tokens, alone = decoder.encode(maps, subject="03"), decoder.encode(average[None])
    gone = decoder.encode(np.where(number == 1, average, maps), subject="03")
    moved, left = tokens - alone, gone - alone
    kept = (left * moved).sum((1, 2)) / np.square(moved).sum((1, 2))
    np.testing.assert_allclose(found.occlusion[:, 1], 1 - kept, rtol=1e-3, atol=1e-4)


def test_contributions_to_what_a_clip_shows_need_its_embedding(decoder, maps):
    width = decoder.model.encoder.module.clip_dim
    towards = np.eye(2, width)
    found = decoder.contributions(maps, towards=towards)
    assert np.abs(found.full).max() < 1
    assert found.occlusion.shape == (2, len(found.areas.names))
    np.testing.assert_array_equal(found.areas.number >= 0, decoder.trained_on.mask)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"towards": np.zeros((1, 64))},
            r"towards: float64 \(1, 64\), must be finite numbers \(2, ",
        ),
        ({"towards": np.full((2, 64), np.nan)}, "towards: .*, must be finite numbers"),
        ({"average": np.zeros((2, 2))}, r"average: \(2, 2\), must end in "),
        ({"areas": np.zeros((3, 3), int)}, "areas: .*, must be whole numbers of the maps' size"),
        ({"subject": "3"}, "subject 3: is none of this decoder's"),
    ],
)
def test_contributions_that_cannot_be_are_a_sentence(decoder, maps, options, sentence):
    with pytest.raises(glfa_jax.InputError, match=sentence):
        decoder.contributions(maps, **options)


# --- adapting ---


def targets(decoder, store) -> np.ndarray:
    return np.mean(
        [
            decoder.align(store.fmri("train", [0, 1], subjects=[one])[:, 0], subject=one)
            for one in ("01", "02")
        ],
        axis=0,
    )


@pytest.fixture(scope="module")
def adapted(decoder, store) -> glfa_jax.Decoder:
    own = store.fmri("train", [0, 1], subjects=["03"])[:, 0]
    return decoder.adapt(own, targets(decoder, store), subject="03")


def test_a_fitted_layer_brings_a_new_subject_nearer(decoder, adapted, store, maps, video):
    own, wanted = store.fmri("train", [0, 1], subjects=["03"])[:, 0], targets(decoder, store)

    def distance(one: glfa_jax.Decoder) -> float:
        return float(np.square(one.align(own, subject="03") - wanted).mean())

    assert distance(adapted) < distance(decoder)
    # The one before, and training subjects, stay as they are.
    np.testing.assert_array_equal(decoder.decode(maps, subject="03", clips=CLIPS), video)
    np.testing.assert_array_equal(
        adapted.align(maps, subject="01"), decoder.align(maps, subject="01")
    )
    assert (adapted.encode(maps, subject="03") != decoder.encode(maps, subject="03")).any()


def test_somebody_quite_new_gets_a_name(decoder, store, maps):
    own = store.fmri("train", [0, 1], subjects=["03"])[:, 0]
    one = decoder.adapt(own, targets(decoder, store), subject="anna", minutes=1 / 30)
    assert one.subjects == ("01", "02", "03", "anna")
    assert (one.align(maps, subject="anna") != one.align(maps)).any()
    with pytest.raises(glfa_jax.InputError, match="subject anna: is none of this decoder's"):
        decoder.align(maps, subject="anna")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"subject": "01"}, "subject: 01 was trained on, has a layer already"),
        ({"subject": "a b"}, "subject: 'a b', must consist of letters and digits"),
        ({"minutes": 99}, r"minutes: 99, must be from 0\.0\d+ \(one clip of 2 s\) to 0\.0\d+"),
        ({"targets": np.zeros((1, 1))}, r"targets: \(1, 1\), must end in "),
        ({"targets": None}, "needs what others have of the clips"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(decoder, store, change, sentence):
    own = store.fmri("train", [0, 1], subjects=["03"])[:, 0]
    given = {"targets": own} | change
    with pytest.raises(glfa_jax.InputError, match=sentence):
        decoder.adapt(own, given.pop("targets"), **given)


# --- exporting ---


def test_an_exported_decoder_travels_alone(exported, tmp_path, maps, video):
    moved = shutil.copytree(exported, tmp_path / "elsewhere" / "decoder")
    np.savez(tmp_path / "maps.npz", maps=maps)
    program = (
        "import sys, numpy as np, glfa_jax\n"
        "maps = np.load(sys.argv[2])['maps']\n"
        f"video = glfa_jax.load(sys.argv[1]).decode(maps, subject='03', clips={CLIPS})\n"
        "np.save(sys.argv[3], video)\n"
    )
    files = (moved, tmp_path / "maps.npz", tmp_path / "video.npy")
    command = [sys.executable, "-c", program, *map(str, files)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    np.testing.assert_array_equal(np.load(files[2]), video)


def test_an_adapted_decoder_keeps_its_subject(adapted, tmp_path, maps):
    again = glfa_jax.load(adapted.export(tmp_path / "adapted"))
    np.testing.assert_array_equal(
        again.encode(maps, subject="03"), adapted.encode(maps, subject="03")
    )
    twice = glfa_jax.load(again.export(tmp_path / "twice"))
    np.testing.assert_array_equal(
        twice.encode(maps, subject="03"), adapted.encode(maps, subject="03")
    )


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> config.Config:
    """A run of whose subject 03 the encoder was trained; as its maps are noise, from which nothing
    is learnt, the encoder is then changed by hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_run, "CLIPS", {"train": 6, "test": 4})
        settings = finished(tmp_path_factory.mktemp("stranger"))
    minutes = 6 * CLIP_SECONDS / 60
    fit = [f"evaluation.adapted_minutes={minutes}", "adapt.method=procrustes"]
    fit += ["adapt.encoder={steps: 20, learning_rate: 0.003, batch_size: 2}"]
    settings = config.overridden(settings, [*fit, "evaluation.test_maps=averaged"])
    (settings.run_dir / "config.yaml").write_text(config.dump(settings))
    adapt.main(settings, subject="03", minutes=minutes)
    model = settings.run_dir / "adapt" / "03-0.2min-procrustes-with-encoder" / "model"
    module, variables = in_memory(load_encoder(model / "encoder"))
    params = variables["params"]
    changed = jax.tree.map(lambda x: 1.05 * x, params["fmri_encoder_proj"])
    save_encoder(model / "encoder", module, params | {"fmri_encoder_proj": changed})
    return settings


def test_an_encoder_trained_for_a_subject_decodes_him_and_travels(stranger, tmp_path, maps):
    minutes = stranger.evaluation.adapted_minutes
    decoder = glfa_jax.load(stranger.run_dir, adapted_minutes=minutes)
    plain = glfa_jax.load(stranger.run_dir)
    tokens = decoder.encode(maps, subject="03")
    # More than the layer differs.
    aligned = decoder.align(maps, subject="03")
    behind = plain.model.encoder.module.apply(
        in_memory(plain.model.encoder.variables), aligned, method="encode"
    )
    assert np.abs(tokens - behind.condition).max() > 1e-3
    np.testing.assert_array_equal(decoder.encode(maps), plain.encode(maps))
    np.testing.assert_array_equal(
        decoder.decode(maps, subject="01"), plain.decode(maps, subject="01")
    )

    video = decoder.decode(maps, subject="03", clips=CLIPS)
    test, own = open_test(stranger), stranger.evaluation
    options = {"scale": own.guidance_scale, "steps": own.sampling_steps, "seed": stranger.seed}
    shown = test.maps("03", CLIPS)
    np.testing.assert_array_equal(
        test.decode(test.sampler(), "03", CLIPS, **options),
        decoder.decode(shown, subject="03", clips=CLIPS),
    )

    again = glfa_jax.load(decoder.export(tmp_path / "out"))
    np.testing.assert_array_equal(again.encode(maps, subject="03"), tokens)
    np.testing.assert_array_equal(again.decode(maps, subject="03", clips=CLIPS), video)
    twice = glfa_jax.load(again.export(tmp_path / "twice"))
    np.testing.assert_array_equal(twice.encode(maps, subject="03"), tokens)
    held = {path.name for path in (tmp_path / "out" / "fitted" / "03").iterdir()}
    assert held == {"encoder"}


def test_which_fit_is_loaded_may_be_said(stranger, tmp_path):
    minutes = stranger.evaluation.adapted_minutes
    with pytest.raises(glfa_jax.InputError, match=r"SUBJECT-0\.2min-ridge-with-encoder\)"):
        glfa_jax.load(stranger.run_dir, adapted_minutes=minutes, method="ridge")
    with pytest.raises(glfa_jax.InputError, match="must be left out without adapted_minutes"):
        glfa_jax.load(stranger.run_dir, encoder=True)
    run = shutil.copytree(stranger.run_dir, tmp_path / "run")
    bare = config.overridden(stranger, ["adapt.encoder.steps=0", "adapt.method=null"])
    (run / "config.yaml").write_text(config.dump(bare))
    chosen = {"method": "procrustes", "encoder": True}
    with pytest.raises(TrainingError, match=r"encoder\.steps: 500 \| 20"):
        glfa_jax.load(run, adapted_minutes=minutes, **chosen)
    fitted = run / "adapt" / "03-0.2min-procrustes-with-encoder"
    kept = (fitted / "config.yaml").read_text().replace(" steps: 20", " steps: 500")
    (fitted / "config.yaml").write_text(kept)
    assert set(glfa_jax.load(run, adapted_minutes=minutes, **chosen).fitted) == {"03"}


@pytest.mark.parametrize("method", ["per_subject", "identity"])
def test_other_alignments_are_exported_as_well(tmp_path, method, maps):
    change = {
        "per_subject": ["alignment.per_subject=true"],
        "identity": ["alignment.global_part=false", "alignment.local_part=false"],
    }[method]
    own = finished(tmp_path, *change)
    run = glfa_jax.load(own.run_dir)
    again = glfa_jax.load(run.export(tmp_path / "out"))
    np.testing.assert_array_equal(again.decode(maps, subject="01"), run.decode(maps, subject="01"))
    if method == "per_subject":
        with pytest.raises(glfa_jax.InputError, match="somebody new: has no alignment layer"):
            again.decode(maps)
    else:
        np.testing.assert_array_equal(again.align(maps), maps.astype(np.float32))
        with pytest.raises(glfa_jax.InputError, match="has no alignment, nothing can be fitted"):
            again.adapt(maps, maps)


def test_a_regression_in_place_of_the_stages_is_exported_as_well(tmp_path):
    """LEA, which has no alignment and whose generator is the foundation's."""
    own = finished(tmp_path, "method=lea")
    module = system.lea(own, tokens=20, token_dim=own.encoder.width, clip_dim=64)
    params = tiny.random_params(pretrained.parameter_shapes("lea", module))
    system.save_own("lea", system.model_folder(own, "lea"), module, params)
    run = glfa_jax.load(own.run_dir)
    store = glfa_jax.Store.open(own.data.store)
    maps = store.fmri("test", CLIPS, subjects=["03"])[:, 0]
    again = glfa_jax.load(run.export(tmp_path / "out"))
    np.testing.assert_array_equal(again.decode(maps, subject="03"), run.decode(maps, subject="03"))
    np.testing.assert_array_equal(again.align(maps, subject="03"), maps.astype(np.float32))


def test_a_decoder_is_sent_nowhere_under_a_name_that_is_none(decoder, monkeypatch):
    monkeypatch.setattr(glfa_jax.Decoder, "export", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(glfa_jax.InputError, match="a/b/c: must be a folder, or owner/name"):
        decoder.push("a/b/c")


def test_a_damaged_export_is_named(exported, tmp_path):
    for name in ("config.yaml", "encoder/model.safetensors", "trained_on/model.safetensors"):
        copy = shutil.copytree(exported, tmp_path / name.replace("/", "-"))
        content = bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(glfa_jax.InputError, match=f"{re.escape(name)}: is not what was"):
            glfa_jax.load(copy)


def test_an_export_of_a_later_version_is_named(exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "later")
    text = (copy / "decoder.json").read_text().replace('"format": 1', '"format": 2')
    (copy / "decoder.json").write_text(text)
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(glfa_jax.InputError, match=r"decoder\.json: has format 2, this version re"):
        glfa_jax.load(copy)


def test_nothing_is_written_over(decoder, exported):
    with pytest.raises(glfa_jax.InputError, match="exists already, must be a new or an empty"):
        decoder.export(exported)


def test_the_model_card_says_what_it_is(exported):
    text = (exported / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["library_name"] == "glfa_jax"
    assert about["license"] == "other"
    assert "| Training subjects | 01, 02 |" in body
    assert "cross-subject, strict pretraining" in body
    settings = glfa_jax.load(exported).settings
    assert f"| Training | {training_words(settings)} |" in body
    assert "This run was not scored." in body


def test_a_scored_runs_card_holds_its_metrics(settings, tmp_path):
    run = shutil.copytree(settings.run_dir, tmp_path / "run")
    line = {"subject": "03", "metric": "SSIM", "variant": "x", "mean": 0.25, "std": 0.5, "n": 4}
    (run / "metrics.json").write_text(
        f"[{str(line | {'chance': 0.125}).replace(chr(39), chr(34))}]"
    )
    folder = glfa_jax.load(run).export(tmp_path / "out", licence="CC-BY-4.0")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| 03 | SSIM (x) | 0.250 ± 0.500 | 0.125 | 4 |" in text
    assert "license: cc-by-4.0" in text


# --- the hub ---


class LocalHub:
    """Repositories as folders."""

    root: Path

    def __init__(self, token: str | None = None):
        self.token = token

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
        (self.root / repository).mkdir(parents=True, exist_ok=exist_ok)
        return f"local:{repository}"

    def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    import huggingface_hub

    monkeypatch.setattr(LocalHub, "root", tmp_path / "hub", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", LocalHub)

    def fetch(repository: str, *, revision: str | None) -> str:
        place = tmp_path / "hub" / repository
        if not place.is_dir():
            raise OSError("404")
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    return tmp_path / "hub"


def test_a_decoder_is_sent_and_fetched(decoder, hub, maps):
    assert decoder.push("lab/decoder") == "local:lab/decoder"
    again = glfa_jax.from_pretrained("lab/decoder")
    np.testing.assert_array_equal(again.encode(maps), decoder.encode(maps))
    assert "# decoder\n" in (hub / "lab" / "decoder" / "README.md").read_text(encoding="utf-8")


def test_from_a_folder_nothing_is_fetched(exported, maps, decoder):
    again = glfa_jax.from_pretrained(exported)
    np.testing.assert_array_equal(again.encode(maps), decoder.encode(maps))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lab/absent", r"lab/absent: is no folder here and cannot be downloaded \(404\)"),
        ("absent", "absent: must be a folder, or owner/name on the hub"),
        ("a/b/c", "a/b/c: must be a folder, or owner/name on the hub"),
    ],
)
def test_what_is_not_there_is_a_sentence(hub, name, sentence):
    with pytest.raises(glfa_jax.InputError, match=sentence):
        glfa_jax.from_pretrained(name)


# --- scoring and preparing ---


def test_videos_are_scored(video, store):
    truth = store.video("test", CLIPS)
    scores = glfa_jax.score(video, truth, judges="foundation/simulated")
    assert scores["SSIM"].values.shape == (2,)
    assert scores["SSIM"].mean == scores["SSIM"].values.mean()
    assert scores["video 2-way"].chance == pytest.approx(0.75, abs=0.05)
    assert "SSIM" in str(scores)
    perfect = glfa_jax.score(truth, truth, judges="foundation/simulated", metrics=["SSIM"])
    assert perfect["SSIM"].mean == 1
    assert "EPE" not in perfect


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda video: video.astype(np.float32), "video: holds float32, must hold uint8"),
        (lambda video: video[0], r"video: .*, must be \(clips, frames, height, width, 3\)"),
        (lambda video: video[:1], "video: 1 clips, but truth has 2"),
    ],
)
def test_videos_of_another_kind_are_a_sentence(video, store, change, sentence):
    with pytest.raises(glfa_jax.InputError, match=sentence):
        glfa_jax.score(change(video), store.video("test", CLIPS), judges="foundation/simulated")


def test_clips_that_the_video_classifier_cannot_take_are_a_sentence():
    video = np.zeros((2, 2, 32, 32, 3), np.uint8)
    said = "^clips of 2 frames: must have at least 3, the tubelet_size of .*video-classifier$"
    with pytest.raises(glfa_jax.InputError, match=said):
        glfa_jax.score(video, video, judges="foundation/simulated")


def test_evaluation_models_that_are_not_there_are_named(video, tmp_path):
    with pytest.raises(glfa_jax.InputError, match="video-classifier"):
        glfa_jax.score(video, video, judges=tmp_path)


def test_a_configuration_is_prepared_in_each_of_its_forms(settings, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config.dump(settings))
    for given in (settings, settings.model_dump(mode="json"), path, str(path)):
        with pytest.raises(glfa_jax.DataError, match="was prepared with other settings"):
            glfa_jax.prepare(given, progress=False)
    with pytest.raises(glfa_jax.ConfigError, match="seeed: unknown key"):
        glfa_jax.prepare(settings.model_dump(mode="json") | {"seeed": 1})


# --- the README ---


def test_the_lines_of_the_readme_run(settings, tmp_path, monkeypatch, capsys):
    [program] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foundation").symlink_to(ROOT / "foundation")
    (tmp_path / "runs").mkdir()
    shutil.copytree(settings.run_dir, tmp_path / "runs" / "demo")
    data = tmp_path / "data" / "demo"
    write_store(data / "store.zarr", identity="trained", seed=0)
    # The tiny run has fewer test clips than the lines ask for in no case.
    assert tiny_run.CLIPS["test"] >= 4
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["video"].shape[0] == 4
    assert "SSIM" in capsys.readouterr().out
