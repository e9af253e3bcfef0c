"""The command line: what it prints, its exit codes, and that it writes what the functions write."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.convert.__main__ import command as main
from glfa_jax.convert.directory import read_file, read_tensors, write_tensors
from tests.convert import test_official as official
from tests.convert import test_pretrained as tiny
from tests.convert.test_pretrained import CONFIGS, contents


@pytest.fixture
def call(capsys):
    """The exit code, and what was written on stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, error = capsys.readouterr()
        return code, out, error

    return run


def rows(table: str) -> dict[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[-1] for line in table.splitlines() if line}


def test_import_and_export_with_their_options(call, tmp_path):
    tiny.write("unet3d", tmp_path / "theirs")
    ours, back = tmp_path / "ours", tmp_path / "back"
    kind = ("--kind", "unet3d")
    code, out, error = call(
        *("import", *kind, "--source", tmp_path / "theirs", "--target", ours),
        *("--dtype", "bfloat16", "--shard-size", "9KB"),
    )
    assert (code, error) == (0, "")
    count = len(read_tensors(tmp_path / "theirs"))
    assert out == f"{ours}: {count} tensors of {tmp_path / 'theirs'}\n"
    assert len(list(ours.glob("*.safetensors"))) > 1
    code, _, _ = call("export", *kind, "--source", ours, "--target", back, "--dtype", "float32")
    assert code == 0
    assert {t.dtype for t in read_tensors(back).values()} == {np.dtype(np.float32)}


def test_an_official_checkpoint_goes_both_ways(call, tmp_path):
    source = official.write(tmp_path / "a.pth", official.checkpoint("fmri_encoder"))
    kind = ("--kind", "fmri_encoder")
    stated = ("--set", "num_heads=2", "--set", "conditioning_heads=2")
    ours = tmp_path / "ours"
    assert call("import", *kind, "--source", source, "--target", ours, *stated)[0] == 0
    back = tmp_path / "b.pth"
    assert call("export", *kind, "--source", ours, "--target", back)[0] == 0
    assert official.stored(read_file(back)) == official.stored(read_file(source))


def test_inspect_tells_what_a_folder_holds(call, tmp_path):
    tiny.write("vit", tmp_path / "vit")
    code, out, _ = call("inspect", "--source", tmp_path / "vit")
    assert code == 0
    found = rows(out)
    tensors = read_tensors(tmp_path / "vit")
    path = tmp_path / "vit" / "model.safetensors"
    assert found["kind"] == "vit by its looks"
    assert found["class"] == "ViTForImageClassification"
    assert found["tensors"] == str(len(tensors))
    assert found["parameters"] == f"{sum(t.size for t in tensors.values()):,}"
    assert found["dtypes"] == f"float32 ({len(tensors)})"
    assert found["file"] == f"model.safetensors ({path.stat().st_size:,} bytes)"
    assert found["hidden_size"] == "8"
    assert found["fits"] == f"yes, all {len(tensors)} tensors have their place"


def test_inspect_lists_what_is_missing_and_unused(call, tmp_path):
    tiny.write("vit", tmp_path / "vit")
    tensors = {name: tensor.copy() for name, tensor in read_tensors(tmp_path / "vit").items()}
    tensors["pooler.weight"] = tensors.pop("classifier.weight")
    write_tensors(tmp_path / "vit", tensors, config=CONFIGS["vit"], filename="model.safetensors")
    code, out, _ = call("inspect", "--source", tmp_path / "vit", "--kind", "vit")
    assert code == 0
    assert (rows(out)["missing"], rows(out)["unused"]) == ("classifier.weight", "pooler.weight")
    assert "fits" not in rows(out)
    code, out, _ = call("inspect", "--source", tmp_path / "vit", "--kind", "video_mae")
    assert code == 0
    assert rows(out)["fits"].startswith("no: ")


def test_inspect_tells_what_a_pipeline_and_a_checkpoint_hold(call, tmp_path):
    tiny.write_text_to_video(tmp_path / "t2v")
    index = tmp_path / "t2v" / "model_index.json"
    index.write_text(json.dumps({"unet": ["diffusers", "UNet3DConditionModel"]}))
    code, out, _ = call("inspect", "--source", tmp_path / "t2v")
    assert code == 0
    assert rows(out)["kind"] == "text_to_video by its looks"
    for heading in ("unet: unet3d", "vae: vae", "text_encoder: clip_text"):
        assert heading in out.splitlines()
    source = official.write(tmp_path / "a.pth", official.checkpoint("fmri_encoder"))
    stated = ("--set", "num_heads=2", "--set", "conditioning_heads=2")
    code, out, _ = call("inspect", "--source", source, *stated)
    assert code == 0
    assert rows(out)["kind"] == "fmri_encoder by its looks"
    assert "the autoencoder's decoder, 22 tensors" in out
    assert rows(out)["window"] == "2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("import", "--kind", "vit", "--source", "absent", "--target", "o"),
            "absent: no such file",
        ),
        (("inspect", "--source", "absent"), "absent: no such file or folder"),
        (("inspect", "--source", os.devnull), f"{os.devnull}: is no plain file"),
        (("verify", "--kind", "vit", "--source", "absent"), "absent: no such file or folder"),
        (
            ("import", "--kind", "vit", "--source", "vit", "--target", "o", "--shard-size", "big"),
            "shard size 'big': must be a size such as 5GB",
        ),
        (
            ("import", "--kind", "vit", "--source", "vit", "--target", "o", "--set", "x"),
            "--set 'x': must read key=value",
        ),
        (("import", "--kind", "vae", "--source", "vit", "--target", "o"), "describes no vae model"),
        (
            ("import", "--kind", "vit", "--source", "vit", "--target", "vit/config.json/o"),
            "vit/config.json/o: cannot be written (Not a directory)",
        ),
        (
            ("import", "--kind", "vit", "--source", "vit", "--target", "o", "--drop-decoder"),
            "a vit has no decoder to drop",
        ),
        (("import", "--kind", "vit", "--source", "vit", "--target", "vit"), "exists already"),
        (("export", "--kind", "vit", "--source", "vit", "--target", "a.pth"), "must be a folder"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(arguments, said, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write("vit", tmp_path / "vit")
    before = contents(tmp_path)
    code, out, error = call(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert said in error
    assert len(error.splitlines()) == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", [(), ("import",), ("import", "--kind", "elephant"), ("verify", "--kind", "vit")]
)
def test_a_wrong_command_line_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    assert "usage: python -m glfa_jax.convert" in capsys.readouterr().err


def test_an_interrupted_import_leaves_nothing(call, tmp_path, monkeypatch):
    tiny.write("vit", tmp_path / "vit")
    before = contents(tmp_path)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("glfa_jax.convert.stream._write", interrupt)
    source = ("--source", tmp_path / "vit", "--target", tmp_path / "new" / "ours")
    code, out, error = call("import", "--kind", "vit", *source)
    assert (code, out, error) == (130, "", "\nstopped; nothing was written\n")
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_process_that_is_asked_to_end_leaves_nothing(tmp_path):
    tiny.write("vit", tmp_path / "vit")
    slow = """
import runpy, time
import glfa_jax.convert.stream
def wait(*_):
    print("writing", flush=True)
    time.sleep(60)
glfa_jax.convert.stream._write = wait
runpy.run_module("glfa_jax.convert", run_name="__main__", alter_sys=True)
"""
    arguments = ["import", "--kind", "vit", "--source", "vit", "--target", "new/ours"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        assert process.stdout.readline() == "writing\n"
        process.terminate()
        _, error = process.communicate(timeout=60)
    said = "\nasked to stop (SIGTERM); nothing was written\n"
    assert (process.returncode, error) == (75, said)
    assert [path.name for path in tmp_path.iterdir()] == ["vit"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_an_import_is_whole_or_not_there_whenever_it_is_asked_to_end(number, code, tmp_path):
    tiny.write("vit", tmp_path / "vit")
    # The signal is sent by the process itself, as it comes to the line of this number.
    at_a_line = """
import os, runpy, sys
number, line = int(sys.argv.pop()), int(sys.argv.pop())
import glfa_jax.convert.transfer
own = os.path.dirname(glfa_jax.__file__) + os.sep  # an environment may lie in a folder of that name
count = 0
def trace(frame, event, argument):
    global count
    if not frame.f_code.co_filename.startswith(own):
        return None
    count += event == "line"
    if count == line and event == "line":
        sys.settrace(None)
        os.kill(os.getpid(), number)
    return trace
sys.settrace(trace)
sys.argv[0] = "convert"
runpy.run_module("glfa_jax.convert", run_name="__main__", alter_sys=True)
"""
    arguments = ["import", "--kind", "vit", "--source", "vit", "--target", "new/ours"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    rng = np.random.default_rng(int(number))
    lines = [str(line) for line in rng.integers(700, 4900, 2)]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                at_a_line,
                *arguments[:-1],
                f"new{line}/ours",
                line,
                str(number.value),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        for line in lines
    ]
    for process, line in zip(started, lines, strict=True):
        _, error = process.communicate(timeout=120)
        assert process.returncode in (code, 0), error
        assert "Traceback" not in error
        target = tmp_path / f"new{line}" / "ours"
        if target.exists():
            read_tensors(target)
            assert [path.name for path in target.parent.iterdir()] == ["ours"]
        else:
            assert not target.parent.exists()
            assert process.returncode == code


def test_help_does_not_wait_for_jax():
    says = "import sys; from glfa_jax.convert.__main__ import _parser; _parser().format_help(); "
    says += "print({'jax', 'flax', 'torch', 'safetensors'} & sys.modules.keys())"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    found = subprocess.run(
        [sys.executable, "-c", says], capture_output=True, text=True, env=environment, check=True
    )
    assert found.stdout == "set()\n"


def test_a_process_of_its_own_ends_the_same_way(tmp_path):
    arguments = ["import", "--kind", "vit", "--source", "absent", "--target", "ours"]
    process = subprocess.run(
        [sys.executable, "-m", "glfa_jax.convert", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.returncode == 2
    assert process.stderr == "error: absent: no such file or folder\n"
    assert not list(tmp_path.iterdir())
