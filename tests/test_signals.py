"""Ctrl-C, schedulers and closed terminals end every command with a sentence and an exit code."""

import os
import signal
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from glfa_jax.cli import command_line

ROOT = Path(__file__).parents[1]
# What a shell starts in the background ignores Ctrl-C, what nohup starts the end of the terminal;
# so do their children.
LISTEN = """import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
WORK = """
import sys, time
from pathlib import Path
from glfa_jax.cli import guarded
from glfa_jax.files import whole_file

def work():
    with whole_file(Path(sys.argv[1]) / "result") as place:
        place.write_text("half")
        print("begun", flush=True)
        WAIT
sys.exit(guarded(work))
"""
WAYS = {
    "python": "time.sleep(60)",
    # A library that makes something else of it.
    "library": """
        try:
            time.sleep(60)
        except BaseException:
            raise ImportError("numpy could not be imported") from None
""",
    # Where nothing can be raised: the first is swallowed.
    "deleted": """
        class Deleted:
            def __del__(self):
                print("deleting", flush=True)
                time.sleep(2)
        Deleted()
        time.sleep(60)
""",
}


def run(code: str, *arguments: object, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LISTEN + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,  # type: ignore[call-overload]
    )


def line(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A package with the name of one of ours, whose modules a test writes."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "__init__.py").write_text("import glfa_jax\n")
    return tmp_path


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    # As from a terminal, wherever these tests were started.
    begin = "import os, sys\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return subprocess.Popen(
        [sys.executable, "-c", LISTEN + begin, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 75, "asked to stop (SIGTERM); the same command goes on from here"),
        (signal.SIGHUP, 75, "asked to stop (SIGHUP); the same command goes on from here"),
        (signal.SIGINT, 130, "stopped; the same command goes on from here"),
    ],
    ids=["term", "hup", "int"],
)
def test_a_signal_ends_with_a_sentence_and_leaves_nothing(tmp_path, number, code, said, way):
    process = run(WORK.replace("WAIT", WAYS[way]), tmp_path)
    assert line(process) == "begun"
    if way == "deleted":
        assert line(process) == "deleting"
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert error.strip() == said
    assert not list(tmp_path.iterdir())


def test_what_nohup_lets_it_ignore_it_ignores(tmp_path):
    wait = "time.sleep(0.5)"
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = run(ignoring + WORK.replace("WAIT", wait), tmp_path)
    assert line(process) == "begun"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "result").read_text() == "half"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_while_it_imports_it_ends_quietly_as_well(elsewhere, number, code):
    """The second of two modules that are imported waits for the signal."""
    (elsewhere / "train" / "slow.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(60)\n"
    )
    process = started(elsewhere, "-m", "train.slow")
    assert line(process) == "importing"
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.strip()) == (
        code,
        "stopped while starting; nothing was begun",
    )


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        (["-m", "train.slow", "--config", "a"], True),
        (["-X", "dev", "-Bmtrain.slow"], True),
        (["-m", "importer", "-m", "train"], False),
        (["importer.py", "-m", "train"], False),
    ],
)
def test_signals_are_taken_over_for_our_commands_alone(elsewhere, arguments, ours):
    code = "import signal\nprint(callable(signal.getsignal(signal.SIGTERM)))\n"
    (elsewhere / "train" / "slow.py").write_text(code)
    (elsewhere / "importer.py").write_text("import glfa_jax\n" + code)
    said, _ = started(elsewhere, *arguments).communicate(timeout=60)
    assert said == f"{ours}\n"


def test_a_command_that_is_done_keeps_its_exit_code(elsewhere):
    (elsewhere / "train" / "slow.py").write_text(
        "import atexit, sys, time\nfrom glfa_jax.cli import guarded\n"
        "def end():\n    print('ending', flush=True)\n    time.sleep(0.5)\n"
        "atexit.register(end)\nsys.exit(guarded(lambda: None))\n"
    )
    process = started(elsewhere, "-m", "train.slow")
    assert line(process) == "ending"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


def test_a_terminal_that_knows_ascii_only_is_spelt_to(tmp_path):
    code = (
        "import sys\nfrom glfa_jax.cli import guarded\nfrom glfa_jax.errors import InputError\n"
        "def work():\n    print('.9 \\u00b1 .1 \\u2191 \\u4e2d')\n"
        "    raise InputError('\\udcff \\u2026')\n"
        "sys.exit(guarded(work))"
    )
    process = run(code, env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said, error) == (2, ".9 +- .1 ^ \\u4e2d\n", "error: \\udcff ...\n")


@pytest.mark.parametrize(
    "word",
    [
        "plain",
        "it's",
        "two\nlines",
        "caf\u00e9",
        "\x1b[31m",
        "not-utf-8-\udcff",
        "$HOME `ls`",
        "~",
        "",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_shell_takes_the_next_command_as_it_was_meant(monkeypatch, word, encoding):
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), encoding=encoding))
    line = command_line("printf", "%s", word)
    assert line.isprintable()
    assert line.isascii() or encoding == "utf-8"
    said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert said == os.fsencode(word)


def test_what_storage_complains_of_to_nobody_is_not_shown():
    code = (
        "from glfa_jax.cli import guarded\nfrom glfa_jax.training import checkpoints\n"
        "class Deleted:\n    def __init__(self, why):\n"
        "        self.why = why\n    def __del__(self):\n        raise RuntimeError(self.why)\n"
        "def work():\n    Deleted('Event loop is closed')\n    Deleted('ours')\nguarded(work)"
    )
    _, error = run(code).communicate(timeout=60)
    assert error.count("RuntimeError: ours") == error.count("RuntimeError: ") == 1


def test_signals_after_a_command_are_nobody_s_business(tmp_path):
    code = (
        "from glfa_jax.cli import guarded\nbefore = signal.getsignal(signal.SIGTERM)\n"
        "guarded(lambda: None)\nassert signal.getsignal(signal.SIGTERM) == before\n"
        "guarded(lambda: 1 / 0)"
    )
    process = run(code)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1  # a mistake of ours is a traceback
    assert "ZeroDivisionError" in error
