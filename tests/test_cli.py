"""Commands given what they cannot use: exit code 2, one sentence, nothing on disk."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from glfa_jax import config
from tests.convert import test_pretrained as tiny
from tests.test_config import MINIMAL

CONFIGURED = (
    "train.pretrain",
    "train.contrast",
    "train.cotrain",
    "train.adapt",
    "eval.sample",
    "eval.score",
    "eval.sweep",
    "eval.explain",
    "glfa_jax.data.prepare",
    "glfa_jax.data.caption",
)
OTHERWISE_CONFIGURED = ("examples.simulated", "eval.study")  # by another schema
PACKAGES = ("examples.simulated", "glfa_jax.report")  # whose command is their __main__
# What a command wants besides its configuration.
BESIDES = {
    "train.adapt": ("--subject", "03", "--minutes", "4"),
    "glfa_jax.data.caption": ("--model", "models/blip"),
}
SMALL = """
encoder: {width: 64, depth: 1, decoder_depth: 1, num_heads: 4, latent: 8}
conditioning: {num_heads: 4}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder; the configuration lies elsewhere."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def given(tmp_path) -> Path:
    path = tmp_path / "given.yaml"
    path.write_text(MINIMAL + SMALL, encoding="utf-8")
    return path


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command as `python -m` does; its exit code and what it wrote on stderr."""

    def run(command: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
        # runpy would warn of, and run again, what other tests have imported already.
        ran = f"{command}.__main__" if command in PACKAGES else command
        monkeypatch.delitem(sys.modules, ran, raising=False)
        with pytest.raises(SystemExit) as end:
            runpy.run_module(command, run_name="__main__", alter_sys=False)
        return end.value.code, capsys.readouterr().err

    return run


def found(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_one_sentence(error: str, *parts: str) -> None:
    assert len(error.strip().splitlines()) == 1, error
    assert "Traceback" not in error
    for part in parts:
        assert part in error


@pytest.mark.parametrize("command", [*CONFIGURED, *OTHERWISE_CONFIGURED, "glfa_jax.report"])
def test_without_arguments_the_usage_is_shown(command, call, folder):
    code, error = call(command)
    assert code == 2
    assert "usage:" in error
    assert "required: " + ("run" if command == "glfa_jax.report" else "--config") in error
    assert found(folder) == []


@pytest.mark.parametrize("command", [*CONFIGURED, *OTHERWISE_CONFIGURED])
def test_a_missing_configuration_is_named(command, call, folder):
    code, error = call(command, "--config", "absent.yaml", *BESIDES.get(command, ()))
    assert code == 2
    assert_one_sentence(error, "error: absent.yaml: no such file")
    assert found(folder) == []


@pytest.mark.parametrize("command", [*CONFIGURED, *OTHERWISE_CONFIGURED])
def test_an_unknown_key_is_named(command, call, folder, given):
    wrong = ("--set", "cotrain.stpes=3")
    code, error = call(command, "--config", given, *wrong, *BESIDES.get(command, ()))
    assert code == 2
    assert_one_sentence(error, "error: ", "cotrain", "unknown key, known here are ")
    assert found(folder) == []


@pytest.mark.parametrize("command", CONFIGURED)
def test_a_wrong_value_is_named(command, call, folder, given):
    wrong = ("--set", "data.map_size=-3")
    code, error = call(command, "--config", given, *wrong, *BESIDES.get(command, ()))
    assert code == 2
    assert_one_sentence(error, "data.map_size: Input should be greater than 0, got -3")
    assert found(folder) == []


@pytest.mark.parametrize("command", [name for name in CONFIGURED if "data" not in name])
def test_a_run_folder_of_another_configuration_is_left_alone(command, call, folder, given):
    run = folder / "runs" / "toy"
    (run / "cotrain" / "model").mkdir(parents=True)
    text = config.dump(config.load(given, ["seed=7"]))
    (run / "config.yaml").write_text(text)
    before = found(folder)
    code, error = call(command, "--config", given, *BESIDES.get(command, ()))
    assert code == 2
    assert_one_sentence(
        error,
        "error: runs/toy: was made with another configuration (now | then): seed: 0 | 7; "
        "use another folder or the old values",
    )
    assert found(folder) == before
    assert (run / "config.yaml").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--subject", "03"), "error: --minutes: must be above 0, as glfa is fitted to fMRI"),
        (("--subject", "03", "--minutes", "0"), "error: --minutes: 0, but must be above 0, as"),
        (("--subject", "03", "--minutes", "4", "--method", "anatomy"), "error: --minutes: 4, but"),
        (("--subject", "03", "--method", "anatomy"), "error: runs/toy: stage 2 is not finished"),
        (("--subject", "03", "--minutes", "few"), "--minutes: invalid float value: 'few'"),
        (("--subject", "01", "--minutes", "4"), "error: --subject: 01 was trained on"),
        (("--subject", "03", "--minutes", "4"), "error: runs/toy: stage 2 is not finished; run"),
    ],
)
def test_fitting_needs_a_new_subject_minutes_and_a_trained_run(
    arguments, said, call, folder, given
):
    code, error = call("train.adapt", "--config", given, *arguments)
    assert code == 2
    assert said in error
    assert "Traceback" not in error
    assert found(folder) == []


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("eval.sample", "python -m train.cotrain"),
        ("eval.score", "python -m eval.sample"),
        ("eval.sweep", "python -m train.cotrain"),
    ],
)
def test_evaluation_before_its_time_names_the_command_to_run(command, first, call, folder, given):
    code, error = call(command, "--config", given)
    assert code == 2
    assert_one_sentence(error, "error: runs/toy", f"run {first}")
    assert found(folder) == []


def test_a_report_of_nothing_is_rejected(call, folder):
    code, error = call("glfa_jax.report", "runs/toy")
    assert code == 2
    assert_one_sentence(error, "error: runs/toy: no such run folder")
    (folder / "runs" / "toy").mkdir(parents=True)
    code, error = call("glfa_jax.report", "runs/toy")
    assert code == 2
    assert_one_sentence(error, "runs/toy/config.yaml: no such file")
    assert found(folder) == ["runs", "runs/toy"]


def test_data_that_are_not_there_are_named(call, folder, given):
    code, error = call("glfa_jax.data.prepare", "--config", given)
    assert code == 2
    assert_one_sentence(error, "error: data")
    assert found(folder) == []


def test_a_process_of_its_own_ends_the_same_way(folder, given):
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "glfa_jax",
            "cotrain",
            "--config",
            given,
            "--set",
            "cotrain.steps=a",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert_one_sentence(process.stderr, "error: ", "cotrain.steps", "got 'a'")
    assert found(folder) == []


@pytest.mark.parametrize("command", ["train.cotrain"])
def test_a_missing_foundation_is_named(command, call, folder, given, monkeypatch):
    monkeypatch.setattr("glfa_jax.stages.running.prepare", lambda data: None)
    code, error = call(command, "--config", given)
    assert code == 2
    assert_one_sentence(error, "error: foundation/text-to-video/", "no such file")


def test_a_foundation_of_another_generator_is_rejected(call, folder, given, monkeypatch):
    monkeypatch.setattr("glfa_jax.stages.running.prepare", lambda data: None)
    tiny.write_text_to_video(folder / "foundation" / "text-to-video")
    code, error = call("train.cotrain", "--config", given, "--set", "generator=wan")
    assert code == 2
    assert_one_sentence(
        error,
        "error: foundation/text-to-video: holds no generator wan (there is no folder transformer), "
        "but one that generator: unet3d reads",
    )
