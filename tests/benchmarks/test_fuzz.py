"""The fuzzer finds what is planted, tries the same inputs for the same seed, and runs."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.fuzz import choosing
from benchmarks.fuzz.__main__ import main
from benchmarks.fuzz.corpus import Case, Corpus, corpora
from benchmarks.fuzz.parser import Parser, Unnoticed
from benchmarks.fuzz.running import run
from benchmarks.fuzz.serving import Limits, Outcome
from glfa_jax.errors import InputError

LIMITS = Limits(seconds=20.0, memory=2**26)
SOUND = {"a.json": '{"a": [1, 2.5, "text"], "b": {"c": null}}', "b.json": "[]"}
QUICK = "sidecar,captions,vid2name,hdf5,mask"


def make(folder: Path) -> Sequence[Path]:
    for name, text in SOUND.items():
        (folder / name).write_text(text)
    return [folder / name for name in SOUND]


def is_sound(path: Path) -> bool:
    return path.read_bytes() == SOUND[path.name].encode()


def tried(
    read: Callable[[Path], object], tmp_path: Path, *, inputs: int = 3, limits: Limits = LIMITS
) -> list[Outcome]:
    parser = Parser("planted", make, lambda path: is_sound(path) or read(path))
    made = corpora([parser], tmp_path / "sound")
    cases = [Case("planted", number) for number in range(inputs)]
    return list(run(made, cases, folder=tmp_path, limits=limits))


def reject(path: Path) -> None:
    raise InputError(f"{path}: is rejected")


def fail(path: Path) -> None:
    raise KeyError(path.name)


def hang(path: Path) -> None:
    time.sleep(60)


def hog(path: Path) -> None:
    held = []
    for _ in range(100):
        held.append(b"x" * 2**22)
        time.sleep(0.02)


def grab(path: Path) -> None:
    len(b"x" * 2**28)  # given back before anybody looks


def abort(path: Path) -> None:
    os.abort()


class Raw(InputError):
    """Shows its text as it is."""

    def __str__(self) -> str:
        return str(self.args[0])


def babble(path: Path) -> None:
    raise Raw(f"{path}: " + "a long story " * 100)


def break_lines(path: Path) -> None:
    raise Raw(f"{path}: one line\nand another")


def enumerate_faults(path: Path) -> None:
    error = Raw(f"{path}: does not fit:\n" + "\n".join(["a line of a list"] * 100))
    error.listed = True  # type: ignore[misc]
    raise error


def mumble(path: Path) -> None:
    raise InputError("something is wrong")


def overlook(path: Path) -> None:
    raise Unnoticed(f"{path}: differs")


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (Path.read_bytes, "read"),
        (reject, "rejected"),
        (enumerate_faults, "rejected"),
        (fail, "traceback"),
        (hog, "memory"),
        (grab, "memory"),
        (abort, "crash"),
        (babble, "sentence"),
        (break_lines, "sentence"),
        (mumble, "sentence"),
        (overlook, "unnoticed"),
    ],
)
def test_what_a_parser_does_is_found_out(read, kind: str, tmp_path: Path):
    outcomes = tried(read, tmp_path)
    assert sorted(outcome.case.number for outcome in outcomes) == [0, 1, 2]
    assert {outcome.kind for outcome in outcomes} == {kind}


def work(path: Path) -> None:
    while True:
        pass


@pytest.mark.parametrize("read", [hang, work])
def test_a_hang_is_ended(read, tmp_path: Path):
    outcomes = tried(read, tmp_path, inputs=2, limits=Limits(seconds=0.2))
    assert {outcome.kind for outcome in outcomes} == {"hang"}
    assert all(outcome.seconds >= 0.2 for outcome in outcomes)


def test_inputs_that_wait_behind_one_that_ends_its_process_are_read(tmp_path: Path):
    outcomes = tried(lambda path: path.name == "a.json" and abort(path), tmp_path, inputs=40)
    assert sorted(outcome.case.number for outcome in outcomes) == list(range(40))
    kinds = [outcome.kind for outcome in outcomes]
    assert min(kinds.count("crash"), kinds.count("read")) > 10
    assert kinds.count("crash") + kinds.count("read") == 40


def test_a_sound_file_that_is_rejected_is_a_failure(tmp_path: Path):
    (corpus,) = corpora([Parser("planted", make, reject)], tmp_path / "sound").values()
    outcomes = run({"planted": corpus}, corpus.sound(), folder=tmp_path, limits=LIMITS)
    assert [outcome.kind for outcome in outcomes] == ["sound", "sound"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Corpus]]:
    """The sound files of some parsers, made twice."""
    parsers = choosing.parsers(QUICK)
    return [corpora(parsers, tmp_path_factory.mktemp("made") / "sound") for _ in range(2)]


def test_equal_seeds_give_equal_inputs(made: list[dict[str, Corpus]]):
    for name, corpus in made[0].items():
        cases = [Case(name, number, seed) for number in range(40) for seed in (0, 1)]
        inputs = [corpus.input(case) for case in cases]
        assert inputs == [made[1][name].input(case) for case in cases]
        assert sum(a != b for a, b in zip(inputs[::2], inputs[1::2], strict=True)) > 30
        assert sum(content not in corpus.contents for _, content in inputs) > 60


def test_a_failing_input_is_tried_again_from_its_file(made: list[dict[str, Corpus]], tmp_path):
    corpus = made[0]["sidecar"]
    case = Case("sidecar", 7)
    kept = choosing.keep(tmp_path, Outcome(case, "traceback", "", 0.0, 0), corpus)
    assert kept.name.startswith("sidecar-0-7-")
    assert corpus.input(choosing.replayed(kept, corpus)) == corpus.input(case)


def test_inputs_are_shared_out(tmp_path: Path):
    parsers = [
        Parser(name, make, fail, share=share) for name, share in zip("abc", (20, 5, 1), strict=True)
    ]
    cases = list(choosing.cases(parsers, seed=3, inputs=1000, seconds=None))
    assert len(cases) == len(set(cases)) == 1000
    counts = [sum(case.parser == name for case in cases) for name in "abc"]
    assert counts == [769, 192, 39]


def test_the_command_counts_and_fails_for_none(tmp_path: Path, capsys):
    target = tmp_path / "result.txt"
    command = ["--parsers", QUICK, "--inputs", "200", "--text", str(target)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert target.read_text() in printed
    assert " 0 failures" in printed
    assert "| hdf5 " in printed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--parsers", "events,moon"], "--parsers: there is no 'moon', there are events, sidecar,"),
        (["--replay", "gone", "--parsers", QUICK], "--replay: one parser must be named with"),
        (["--replay", "gone", "--parsers", "events"], "gone: no such file"),
    ],
)
def test_wrong_options_end_in_one_sentence(options: list[str], says: str, capsys):
    assert main(options) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {says}")
    assert len(said.splitlines()) == 1


def test_all_parsers_are_listed_once():
    assert len(set(choosing.NAMES)) == len(choosing.NAMES) == 29
