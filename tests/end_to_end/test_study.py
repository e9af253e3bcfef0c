"""A whole study, tiny: every stage through the commands that a user types, killed and resumed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import yaml
import zarr
from flax.traverse_util import flatten_dict

from glfa_jax import config
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.evaluation import sample, score, sweep
from glfa_jax.evaluation.decoding import HeldOut, open_test
from glfa_jax.lock import only_one
from glfa_jax.report.inputs import read as read_run
from glfa_jax.results import Scores
from glfa_jax.stages import adapt, cotrain, lea
from glfa_jax.trained.model import load_model
from glfa_jax.trained.sampler import VideoSampler
from tests.data.test_store_damage import unseal
from tests.readonly import MINDING_PERMISSIONS, read_only

ROOT = Path(__file__).parents[2]
STEPS = 3

TINY = {
    "name": "tiny",
    "foundation": str(ROOT / "foundation" / "simulated"),
    "data": {
        "subjects": ["01", "02", "03"],
        "map_size": 32,
        "window": 3,
        "frames": 6,
        "resolution": [64, 64],
        "simulation": {
            "subjects": 3,
            "train_runs": 1,
            "test_runs": 1,
            "clips_per_run": 8,
            "test_repeats": 2,
        },
    },
    "protocol": {"train_subjects": ["01", "02"], "test_subjects": ["03"]},
    "encoder": {
        "patch_size": 8,
        "width": 64,
        "depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "latent": 16,
    },
    "alignment": {"kernel_size": 3},
    "conditioning": {"hidden_tokens": 8, "num_heads": 2},
    "pretrain": {"steps": STEPS, "batch_size": 4, "save_every": 1},
    # Long enough to be killed in the middle.
    "contrast": {"steps": 40, "batch_size": 4, "save_every": 1, "token_scale": 1.0},
    "cotrain": {"steps": STEPS, "batch_size": 4, "save_every": 1},
    "evaluation": {"sampling_steps": 2, "batch_size": 3, "clips": 4},
}


def write_config(folder: Path, **changes) -> Path:
    tree = {**TINY, **changes, "run_dir": str(folder / "run")}
    tree["data"] = {
        **tree["data"],
        "root": str(folder / "study"),
        "store": str(folder / "store.zarr"),
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module: str, *arguments: object, devices: int = 1) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(module, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
    )


def checkpoint_steps(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, Path, str]:
    """A finished study: its folder, its configuration, and what the second start printed.

    The first start is killed as soon as stage 1 has a checkpoint.
    """
    folder = tmp_path_factory.mktemp("study")
    settings = write_config(folder)
    process = subprocess.Popen(
        command("train.cotrain", "--config", settings),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 400
    while not checkpoint_steps(folder / "run" / "contrast"):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint of stage 1 in time"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = run("train.cotrain", "--config", settings)
    assert again.returncode == 0, again.stderr
    for module in ("eval.sample", "eval.score"):
        step = run(module, "--config", settings)
        assert step.returncode == 0, step.stderr
    return folder, settings, again.stdout


def test_finished_stages_are_not_done_again_after_a_kill(study):
    folder, _, said = study
    assert "pretrain: finished already, step 3" in said
    assert "contrast: finished already" not in said
    assert "next: python -m eval.sample" in said
    assert re.search(
        r"== contrast: .*synonyms in captions from (the built-in thesaurus|WordNet)", said
    )
    log = (folder / "run" / "pretrain" / "log.jsonl").read_text().splitlines()
    assert len(log) <= STEPS


def test_every_stage_leaves_its_model(study):
    run_dir = study[0] / "run"
    for model in ("pretrain/model", "contrast/model", "cotrain/model/encoder"):
        assert (run_dir / model / "model.safetensors").is_file()
    assert (run_dir / "cotrain/model/unet/diffusion_pytorch_model.safetensors").is_file()


def test_metrics_say_what_they_promise(study):
    rows = json.loads((study[0] / "run" / "metrics.json").read_text())
    keys = {"metric", "variant", "mean", "std", "n", "chance", "p_value", "subject", "method"}
    assert all(keys <= row.keys() for row in rows)
    exact = {row["metric"]: row for row in rows if row["variant"] == "exact"}
    assert set(exact) == {"video 2-way", "video 50-way", "frame 2-way", "frame 50-way"}
    assert exact["video 2-way"]["chance"] == pytest.approx(0.75)
    assert all(row["n"] == 4 and row["subject"] == "03" for row in rows)
    assert all(row["method"] == "GLFA, caption tokens" for row in rows)
    assert {"SSIM", "PSNR"} <= {row["metric"] for row in rows}
    assert Scores.read(study[0] / "run").training["contrast.steps"] == "40"


def test_every_test_clip_is_shown(study):
    samples = study[0] / "run" / "samples"
    index = json.loads((samples / "index.json").read_text())
    assert [entry["clip"] for entry in index] == [0, 1, 2, 3]
    for entry in index:
        assert {"video 2-way", "SSIM"} <= entry["scores"].keys()
        for key in ("generated", "truth", "generated_gif", "truth_gif"):
            assert (samples / entry[key]).stat().st_size > 0
    page = (study[0] / "run" / "report" / "index.html").read_text()
    assert all(entry["caption"].replace("'", "&#x27;") in page for entry in index)


def test_samples_depend_neither_on_the_batch_nor_on_the_devices(study):
    """A clip's noise is its own, so other batch sizes, sharded, give the same video."""
    folder, settings, _ = study
    samples = folder / "run" / "samples"
    kept = samples.with_name("samples-kept")
    samples.rename(kept)
    try:
        batches = ("--set", "evaluation.batch_size=4")
        step = run("eval.sample", "--config", settings, *batches, devices=2)
        assert step.returncode == 0, step.stderr
        with np.load(samples / "03" / "00000.npz") as arrays:
            all_at_once = arrays["video"]
        parts = [np.load(path)["video"] for path in sorted((kept / "03").glob("*.npz"))]
        difference = np.abs(np.concatenate(parts).astype(int) - all_at_once.astype(int))
        assert difference.max() <= 1
    finally:
        for path in sorted(samples.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        samples.rmdir()
        kept.rename(samples)


def test_a_fitted_subject_is_evaluated_beside_zero_shot(study, capsys):
    """In this process, where the programs are compiled already."""
    folder, settings, _ = study
    run_dir, fitted = folder / "run", folder / "run" / "adapted-0.2min"
    before = {path: path.read_bytes() for path in sorted((run_dir / "samples").rglob("*.npz"))}
    before |= {run_dir / name: (run_dir / name).read_bytes() for name in ("metrics.json",)}
    ours = config.load(settings, ["evaluation.adapted_minutes=0.2", "adapt.steps=10"])
    with pytest.raises(InputError, match=r"train\.adapt --config .* --subject 03 --minutes 0\.2"):
        sample.main(ours)
    assert not fitted.exists()
    adapt.main(ours, subject="03", minutes=0.2)
    assert "to 6 clips that 01 or 02 saw as well" in capsys.readouterr().out
    sample.main(ours)
    score.main(ours)
    assert all(path.read_bytes() == content for path, content in before.items())
    rows = json.loads((fitted / "metrics.json").read_text())
    assert {row["method"] for row in rows} == {"GLFA, caption tokens, fitted to 0.2 min"}
    video = [np.load(path / "samples/03/00000.npz")["video"] for path in (run_dir, fitted)]
    assert video[0].shape == video[1].shape
    assert np.any(video[0] != video[1])
    assert (fitted / "report" / "index.html").is_file()


READS = """
import sys
from glfa_jax.evaluation import sample
from glfa_jax import config
from glfa_jax.cli import guarded
from glfa_jax.stages import cotrain

def work():
    cotrain.main(config.load(sys.argv[1]))
    sample.main(config.load(sys.argv[1]))
    sample.main(config.load(sys.argv[1], [f"results_dir={sys.argv[2]}"]))

sys.exit(guarded(work))
"""


def test_a_run_that_is_read_only_decodes_with_results_elsewhere(study, tmp_path):
    folder, settings, _ = study
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    with read_only(folder):
        step = subprocess.run(
            [sys.executable, "-c", MINDING_PERMISSIONS, "-c", READS, settings, tmp_path],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert step.returncode == 0, step.stderr
    assert "cotrain: finished already" in step.stdout
    assert "sample: every test clip is decoded already" in step.stdout
    assert f"eval.score --config {tmp_path / 'config.yaml'}" in step.stdout
    assert before == {
        path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()
    }
    for name in ("00000.npz", "00003.npz"):
        with (
            np.load(folder / "run" / "samples" / "03" / name) as ours,
            np.load(tmp_path / "samples" / "03" / name) as theirs,
        ):
            np.testing.assert_array_equal(ours["video"], theirs["video"])


def test_a_second_start_is_shown_who_works_there(study):
    folder, settings, _ = study
    with only_one(folder / "run"):
        for module in ("train.cotrain", "eval.sample"):
            step = run(module, "--config", settings)
            assert step.returncode == 2
            assert f"error: {folder / 'run'}: process {os.getpid()} on " in step.stderr
            assert "Traceback" not in step.stderr
    assert not (folder / "run" / ".lock").exists()


def test_other_settings_are_rejected_naming_them(study):
    _, settings, _ = study
    step = run("train.cotrain", "--config", settings, "--set", "seed=5")
    assert step.returncode == 2
    assert "seed: 5 | 0" in step.stderr
    assert "Traceback" not in step.stderr
    step = run("eval.sample", "--config", settings, "--set", "evaluation.guidance_scale=2")
    assert step.returncode == 2
    assert "evaluation" in step.stderr
    assert "Traceback" not in step.stderr


SWEPT = {"guidance_scales": [0, 1, 2, 4, 9], "sampling_steps": [1, 2, 3], "seeds": [0, 1]}
SWEEP = [f"sweep.{key}={value}" for key, value in SWEPT.items()] + ["evaluation.metrics=[pixel]"]


@pytest.fixture(scope="module")
def swept(study) -> tuple[config.Config, Path, list[VideoSampler]]:
    """A finished sweep: its configuration, its folder and what it sampled with."""
    folder, path, _ = study
    settings = config.load(path, SWEEP)
    made = made_by(lambda: sweep.main(settings))
    return settings, folder / "run" / "sweep", made


def made_by(program: Callable[[], None]) -> list[VideoSampler]:
    """The samplers that a program makes."""
    made, make = [], HeldOut.sampler
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            HeldOut, "sampler", lambda test, **step: made.append(make(test, **step)) or made[-1]
        )
        program()
    return made


def test_a_sweep_compiles_once_a_number_of_steps(swept):
    _, place, made = swept
    assert [sampler.compiled() for sampler in made] == [3]
    rows = json.loads((place / "table.json").read_text())
    assert {row["sampling_steps"] for row in rows} == {1, 2, 3}
    assert len(rows) == 5 * 3 * 2 * len({row["metric"] for row in rows})
    header, *lines = (place / "table.csv").read_text().splitlines()
    assert header.startswith("checkpoint,subject,sampling_steps,guidance_scale,seed,metric,variant")
    assert len(lines) == len(rows)
    assert (place / "sweep.png").stat().st_size > 10_000


def test_a_cell_of_a_sweep_is_what_sampling_and_scoring_give(study, swept):
    sampled = Scores.read(study[0] / "run")
    cell = Scores.read(swept[1] / "03" / f"checkpoint{STEPS}_steps2_scale9_seed0")
    assert cell.keys == sampled.keys
    assert {"video 2-way", "frame 50-way", "SSIM"} <= cell.metrics.keys() < sampled.metrics.keys()
    for name in cell.metrics:
        np.testing.assert_array_equal(cell.values(name), sampled.values(name))
    other = Scores.read(swept[1] / "03" / f"checkpoint{STEPS}_steps2_scale9_seed1")
    assert (other.values("PSNR") != sampled.values("PSNR")).any()


def test_a_sweep_goes_on_where_it_was(swept):
    settings, place, _ = swept
    written = {file: file.stat().st_mtime_ns for file in place.rglob("scores.json")}
    assert len(written) == 30
    lost = min(written)
    before = lost.read_text()
    lost.unlink()
    sweep.main(settings)
    assert lost.read_text() == before
    assert all(file.stat().st_mtime_ns == then for file, then in written.items() if file != lost)


def test_checkpoints_can_be_swept(study, swept):
    path = study[1]
    checkpoints = f"sweep.checkpoints=[{STEPS - 1}, {STEPS}]"
    settings = config.load(path, [*SWEEP[3:], checkpoints, "sweep.seeds=[2]"])
    made = made_by(lambda: sweep.main(settings))
    assert [sampler.compiled() for sampler in made] == [1]
    earlier, last = (
        Scores.read(swept[1] / "03" / f"checkpoint{step}_steps2_scale9_seed2")
        for step in (STEPS - 1, STEPS)
    )
    assert (earlier.values("PSNR") != last.values("PSNR")).any()
    finished, restored = load_model(settings), load_model(settings, step=STEPS)
    for of in (lambda decoder: decoder.encoder.variables, lambda decoder: decoder.denoiser):
        ours, theirs = (
            cast(dict[tuple, np.ndarray], flatten_dict(of(decoder)))
            for decoder in (finished, restored)
        )
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    with pytest.raises(TrainingError, match="holds no checkpoint 77"):
        load_model(settings, step=77)


def test_variants_train_by_configuration_alone(study):
    """Without alignment, with LoRA, from kept latents, half of the rows unpaired.

    They share data and the first two stages.
    """
    folder, settings, _ = study
    tree = yaml.safe_load(settings.read_text())
    tree["run_dir"] = str(folder / "variant")
    tree["alignment"] = {"global_part": False, "local_part": False}
    tree["cotrain"] |= {"trainable": "lora", "lora": {"rank": 2}, "steps": 1}
    tree["cotrain"]["paired_fraction"] = 0.5
    tree["data"]["latents"] = True
    variant = folder / "variant.yaml"
    variant.write_text(yaml.safe_dump(tree))
    for stage in ("pretrain", "contrast"):
        (folder / "variant" / stage).mkdir(parents=True)
        os.rename(folder / "run" / stage / "model", folder / "variant" / stage / "model")
        for name in ("done.json",):
            (folder / "variant" / stage / name).write_bytes(
                (folder / "run" / stage / name).read_bytes()
            )
    try:
        step = run("train.cotrain", "--config", variant)
        assert step.returncode == 0, step.stderr
    finally:
        for stage in ("pretrain", "contrast"):
            os.rename(folder / "variant" / stage / "model", folder / "run" / stage / "model")
    settings_of = json.loads((folder / "variant/cotrain/model/encoder/config.json").read_text())
    assert not settings_of["local_part"]
    assert (folder / "store.zarr" / "train" / "latents" / "zarr.json").is_file()


@pytest.fixture(scope="module")
def regression(study) -> config.Config:
    """The same study by LEA, with the encoder that it has pretrained already."""
    folder, settings, _ = study
    shutil.copytree(folder / "run" / "pretrain", folder / "lea" / "pretrain")
    settings = config.load(settings, ["method=lea", f"run_dir={folder / 'lea'}"])
    for program in (cotrain, sample, score):
        program.main(settings)
    return settings


def test_lea_is_a_study_by_configuration_alone(regression):
    run_dir = regression.run_dir
    assert {path.name for path in run_dir.iterdir() if path.is_dir()} == {
        *("pretrain", "lea", "samples", "report")
    }
    rows = json.loads((run_dir / "metrics.json").read_text())
    assert {row["method"] for row in rows} == {"LEA"}
    assert {"video 2-way", "frame 50-way", "SSIM"} <= {row["metric"] for row in rows}
    assert not (run_dir / "alignment.npz").exists()
    page = (run_dir / "report" / "index.html").read_text()
    assert "LEA has no alignment layer, so there are no maps to show" in page
    assert "Stage 2" not in page
    videos, clips = sample.read_samples(open_test(regression), "03")
    assert clips == [0, 1, 2, 3]
    assert len({video.tobytes() for video in videos}) == 4


def test_a_generator_is_trained_on_the_regression_and_nothing_else_is(regression, tmp_path):
    run_dir = tmp_path / "run"
    for stage in ("pretrain", "lea", "samples"):
        shutil.copytree(regression.run_dir / stage, run_dir / stage)
    shutil.copy(regression.run_dir / "metrics.json", run_dir)
    own = config.overridden(regression, ["lea.cotrain_generator=true", f"run_dir={run_dir}"])
    cotrain.main(own)
    ours, theirs = load_model(own), load_model(regression)
    assert checkpoint_steps(run_dir / "cotrain")[-1] == STEPS
    for step in (None, STEPS):
        model = load_model(own, step=step)
        for found, before in zip(model.encoder, theirs.encoder, strict=True):
            assert str(found) == str(before)
    before = flatten_dict(in_memory(theirs.denoiser))
    for path, values in flatten_dict(in_memory(ours.denoiser)).items():
        trains = any(name in "/".join(path) for name in ("attn1", "attn2", "temp_conv"))
        if not trains:
            np.testing.assert_array_equal(values, before[path])
        elif path[-1] == "kernel":
            assert (values != before[path]).any(), path
    assert not (run_dir / "cotrain" / "model" / "encoder").exists()
    assert (run_dir / "cotrain" / "model" / "trained_on").is_dir()
    assert list(read_run(run_dir).logs) == ["pretrain", "cotrain"]
    assert list(read_run(regression.run_dir).logs) == ["pretrain"]


def test_lea_learns_from_nothing_but_the_train_windows_of_the_train_subjects(regression, tmp_path):
    """Not from the test split, whose statistics the original takes, nor from a test subject."""
    stored = (regression.run_dir / "lea" / "model" / "model.safetensors").read_bytes()

    def refitted(*changed: str) -> bytes:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(regression.data.store, folder / "store")
        shutil.copytree(regression.run_dir / "pretrain", folder / "run" / "pretrain")
        unseal(folder / "store")
        for name in changed:
            array = zarr.open_array(folder / "store" / name, mode="r+")
            array[...] = np.random.default_rng(0).integers(1, 9, array.shape)
        lea.run(
            regression.model_copy(update={"run_dir": folder / "run"}), Store.open(folder / "store")
        )
        return (folder / "run" / "lea" / "model" / "model.safetensors").read_bytes()

    others = [f"test/fmri/sub-{subject}" for subject in ("01", "02", "03")]
    assert refitted(*others, "test/video", "train/fmri/sub-03") == stored
    assert refitted("train/fmri/sub-02") != stored
