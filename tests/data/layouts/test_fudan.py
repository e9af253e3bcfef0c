"""The Fudan set's folders, with images of few pixels and true numbers of volumes and clips."""

import io
import os
import pickle
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, vid2name
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.layouts.vid2name import read_vid2name
from tests.data.layouts.reading import rejects

IMAGE = (5, 7)
# Lists 1 and 4 are the test clips, in another order; the others are train clips.
_ORDER = np.random.default_rng(0)
LISTS = {1: _ORDER.permutation(200) + 9000}
LISTS[4] = _ORDER.permutation(LISTS[1])
LISTS |= {run: np.arange(200) + 1000 * run for run in (2, 3, 5, 6, 7)}
FIRST = [1, 2, 3, 4, 5, 6, 7]
OTHERS = [*range(1, 29)]


def scan(root: Path, subject: int, run: int) -> Path:
    name = f"sub-{subject:04d}"
    file = f"{name}_task-video_run-{run}_space-fsLR_den-91k_bold.dtseries.h5"
    return root / "processed-fmri" / name / "hdf5" / file


def write_scan(path: Path, volumes: int, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(size=(volumes, *IMAGE)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["images"] = values
    return values


def write_names(root: Path, names: object) -> Path:
    path = root / "stimuli" / "vid2name.npy"
    np.save(path, names, allow_pickle=True)
    return path


def names_of(lists=LISTS) -> dict[int, str]:
    return {int(video): f"caption of {video}" for ids in lists.values() for video in ids}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fudan")
    (root / "stimuli" / "condition").mkdir(parents=True)
    for run, videos in LISTS.items():
        lines = "".join(f"{video}\n" for video in videos)
        (root / "stimuli" / "condition" / f"run{run}.txt").write_text(lines)
    for video in names_of():
        (root / "stimuli" / f"{video}.mp4").touch()
    write_names(root, names_of())
    for run in FIRST:
        write_scan(scan(root, 1, run), 2610, seed=run)
    for run in OTHERS:
        write_scan(scan(root, 2, run), 660, seed=run)
    return root


def settings(root, **changes) -> config.Data:
    values = {"layout": "fudan", "root": root, "store": root / "a.zarr", "subjects": ("1", "2")}
    return config.Data(**{**values, **changes})


@pytest.fixture(scope="module")
def study(root):
    return read_study(settings(root), Problems(skip=False))


def runs_of(study, subject, split):
    return [run for run in study.runs if (run.subject, run.split) == (subject, split)]


def test_runs_and_samples_are_as_published(study):
    assert [int(run.name) for run in runs_of(study, "1", "train")] == [2, 3, 5, 6, 7]
    assert [int(run.name) for run in runs_of(study, "1", "test")] == [1, 4]
    assert [int(run.name) for run in runs_of(study, "2", "train")] == [
        *range(5, 13),
        *range(17, 29),
    ]
    assert [int(run.name) for run in runs_of(study, "2", "test")] == [1, 2, 3, 4, 13, 14, 15, 16]
    for subject in ("1", "2"):
        train = [t for run in runs_of(study, subject, "train") for t in run.trials]
        test = [t for run in runs_of(study, subject, "test") for t in run.trials]
        assert len(train) == len({trial.clip for trial in train}) == 2000
        assert {trial.repeat for trial in train} == {1}
        assert len({trial.clip for trial in test}) == 400
        assert len({(trial.clip, trial.repeat) for trial in test}) == len(test) == 800
        assert {trial.repeat for trial in test} == {1, 2}
    assert {trial.repeat for trial in runs_of(study, "2", "test")[5].trials} == {2}
    assert study.notes == ()


def test_a_quarter_of_the_list_is_shown_in_a_run_of_the_others(study):
    shown = {run.name: [t.clip for t in run.trials[::2]] for run in study.runs if run.subject > "1"}
    for run, clips in shown.items():
        number = int(run)
        whole, quarter = LISTS[(number - 1) // 4 + 1], (number - 1) % 4
        assert clips == [f"{video}_0s" for video in whole[50 * quarter : 50 * (quarter + 1)]]
    first = {run.name: [t.clip for t in run.trials] for run in study.runs if run.subject == "1"}
    for number, ids in LISTS.items():
        assert first[str(number)] == [f"{v}_{half}s" for v in ids for half in (0, 4)]


def test_windows_lie_where_the_official_loader_cuts_them(root, study):
    """Of the volumes after the third: 13 a trial, 5 of lag, 5 more for the second half."""
    run = runs_of(study, "2", "train")[3]
    values = write_scan(root / "again.h5", 660, seed=int(run.name)).reshape(660, -1)
    series = np.concatenate(list(run.blocks()))
    np.testing.assert_array_equal(series, values[3:])
    assert (run.repetition_time, run.start_time, run.tail) == (0.8, 0.0, 0)
    for index, trial in enumerate(run.trials):
        place, half = divmod(index, 2)
        first = (trial.onset + 4.0 - run.start_time) / run.repetition_time
        assert first == pytest.approx(13 * place + 5 + 5 * half, abs=1e-9)
        video = trial.clip.split("_")[0]
        part = study.videos[trial.clip]
        assert (part.path, part.start) == (root / "stimuli" / f"{video}.mp4", 4.0 * half)
        assert part.duration == trial.duration == 4.0
        assert study.captions[trial.clip] == f"caption of {video}"
    assert run.scans == (scan(root, 2, int(run.name)),)
    assert run.files == (*run.scans, root / "stimuli" / "condition" / "run2.txt")


@pytest.fixture
def broken(root, tmp_path):
    """The study linked, so that any scan can be replaced."""
    _link(root / "processed-fmri", tmp_path / "s" / "processed-fmri")
    (tmp_path / "s" / "stimuli").symlink_to(root / "stimuli")
    return tmp_path / "s"


def own_stimuli(broken: Path) -> Path:
    """Lets the stimuli be replaced as well."""
    folder = broken / "stimuli"
    whole = folder.readlink()
    folder.unlink()
    _link(whole, folder)
    return folder


def _link(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def replace(path: Path) -> Path:
    path.unlink()
    return path


def test_a_missing_tail_is_left_to_the_windows(broken):
    write_scan(replace(scan(broken, 2, 7)), 600)
    study = read_study(settings(broken), Problems(skip=False))
    run = next(run for run in runs_of(study, "2", "train") if run.name == "7")
    assert len(run.trials) == 100
    assert sum(len(block) for block in run.blocks()) == 597


@pytest.mark.parametrize(("subject", "run", "volumes"), [(1, 2, 660), (2, 7, 2610), (2, 7, 300)])
def test_a_run_of_another_length_is_rejected(broken, subject, run, volumes):
    write_scan(replace(scan(broken, subject, run)), volumes)
    clips = 200 if subject == 1 else 50
    study = rejects(
        rf"run-{run}_\S+: 'images' has shape \({volumes}, 5, 7\), .* {3 + 13 * clips} volumes for "
        rf"the {clips} clips of run2\.txt",
        settings(broken),
    )
    assert len(study.runs) == 7 + 28 - 1


def test_missing_runs_are_left_out_in_one_line(broken):
    problems = Problems(skip=False)
    scan(broken, 2, 14).unlink()
    scan(broken, 2, 8).unlink()
    scan(broken, 2, 7).unlink()
    scan(broken, 2, 6).unlink()
    scan(broken, 2, 14).symlink_to("none")  # as git-annex leaves it
    study = read_study(settings(broken), problems)
    assert problems.missing.lines == ["not there: run 6 to run 8 and run 14 of subject 2"]
    # The repeats of the others keep their numbers.
    assert {t.repeat for t in runs_of(study, "2", "test")[-1].trials} == {2}
    assert len(study.runs) == 7 + 28 - 4
    for path in scan(broken, 2, 5).parent.iterdir():
        path.unlink()
    rejects(r"nothing of subject 2 is there, neither run 1 to run 28$", settings(broken))


def test_run_lists_of_another_part(broken):
    runs = {
        "1": config.RunNumbers(train=(2,), test=(1,)),
        "2": config.RunNumbers(train=(5, 6, 7, 8), test=(1, 2)),
    }
    study = read_study(settings(broken, runs=runs), Problems(skip=False))
    assert [run.name for run in study.runs] == ["2", "1", "5", "6", "7", "8", "1", "2"]
    study = rejects(
        r"data\.runs: does not say which runs subject 3 has, it is for 1, 2$",
        settings(broken, runs=runs, subjects=("1", "3")),
    )
    assert {run.subject for run in study.runs} == {"1"}


def test_subjects_that_are_not_there(broken):
    rejects(r"sub-0003/hdf5: no such folder", settings(broken, subjects=("1", "3")))
    rejects(
        r"subject 6 has, left out it is for 1, 2, 3, 4, 5$", settings(broken, subjects=("1", "6"))
    )
    runs = {"a": config.RunNumbers(train=(2,), test=(1,)), "1": {"train": [2], "test": [1]}}
    rejects(r"must be numbers .* one is a$", settings(broken, runs=runs, subjects=("1", "a")))


def test_lists_and_captions_with_mistakes(broken):
    stimuli = own_stimuli(broken)
    table = replace(stimuli / "condition" / "run3.txt")
    study = rejects(r"run3\.txt: no such file", settings(broken))
    assert len(study.runs) == 7 + 28 - 5
    table.write_text("12\n3x\n")
    rejects(r"run3\.txt: must hold an integer video id a line, one is '3x'", settings(broken))
    table.write_text("12\n" + 5000 * "3")
    rejects(r"run3\.txt: must hold an integer video id a line, one is '333", settings(broken))
    table.write_text("12\n13\n14\n")
    rejects(r"run3\.txt: 3 video ids, must be a multiple of 4", settings(broken))
    table.write_text("".join(f"{video}\n" for video in LISTS[3]))
    names = names_of()
    del names[3007]
    path = replace(stimuli / "vid2name.npy")
    write_names(broken, names)
    study = rejects(r"npy: has no caption for clip 3007_0s and 1 more$", settings(broken))
    assert len(study.captions) == 2 * 1200 - 2
    path.unlink()
    captions = broken / "captions.tsv"
    rows = [f"{video}.mp4\tother words for {video}" for video in names_of()]
    captions.write_text("\n".join(["stim_file\tcaption", *rows]) + "\n")
    study = read_study(settings(broken, captions=captions), Problems(skip=False))
    assert study.captions["3007_4s"] == "other words for 3007"
    captions.write_text(captions.read_text() + "3007_4s\tof its second half\n")
    study = read_study(settings(broken, captions=captions), Problems(skip=False))
    assert study.captions["3007_0s"] == "other words for 3007"
    assert study.captions["3007_4s"] == "of its second half"
    captions.write_text(captions.read_text() + "other/3007.avi\tand others\n")
    rejects(r"captions\.tsv: video 3007 has two captions", settings(broken, captions=captions))
    captions.write_text("\n".join(["stim_file\tcaption", *rows]) + "\n")
    (stimuli / "3007.mp4").unlink()
    problems = Problems(skip=False)
    study = read_study(settings(broken, captions=captions), problems)
    assert problems.missing.lines == [f"not there: 3007.mp4 in {stimuli}"]
    assert not {"3007_0s", "3007_4s"} & set(study.videos)


@pytest.mark.parametrize(
    "names",
    [
        {3: "a", 4: "b c"},
        {np.int64(3): "a", np.int16(4): np.str_("b c")},
        {np.uint8(3): "a", np.array(4, ">i4")[()]: np.array("b c ", ">U4")[()]},
        np.array([{3: "a", 4: "b c"}], object),
    ],
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_captions_are_read_without_unpickling(tmp_path, monkeypatch, names, protocol):
    content = names if isinstance(names, np.ndarray) else np.array(names, object)
    header = io.BytesIO()
    np.save(header, content, allow_pickle=True)
    start = header.getvalue().index(b"\n") + 1
    path = tmp_path / "vid2name.npy"
    pickled = pickle.dumps(content, protocol=protocol)
    path.write_bytes(header.getvalue()[:start] + pickled)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    assert read_vid2name(path) == {3: "a", 4: "b c"}
    # What numpy wrote before its second version.
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    if protocol < 4:  # later protocols write the length before the name
        assert read_vid2name(path) == {3: "a", 4: "b c"}


class Bomb:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("bomb", "named"),
    [
        (Bomb(os.system, "touch {}"), "posix.system"),
        (Bomb(eval, "open('{}', 'w')"), "builtins.eval"),
        (Bomb(np.load, "{}"), "numpy.load"),
        (Bomb(getattr, np, "load"), "builtins.getattr"),
    ],
)
def test_pickled_code_is_named_and_never_run(tmp_path, bomb, named):
    (tmp_path / "stimuli").mkdir()
    mark = tmp_path / "mark"
    bomb.arguments = tuple(a.format(mark) if isinstance(a, str) else a for a in bomb.arguments)
    if bomb.function is getattr:
        bomb.arguments = (1, "real")
    path = write_names(tmp_path, {3: "a", 4: bomb})
    with pytest.raises(DataError, match=rf"npy: names '{named}', which could run code") as caught:
        read_vid2name(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"3": "a"}, "maps '3' to 'a'"),
        ({3: 4}, "maps 3 to 4"),
        ({True: "a"}, "maps True to 'a'"),
        ({3: " "}, "maps 3 to ' '"),
        ({3: "n/a"}, "maps 3 to 'n/a'"),
        ({3: "x" * 131_073}, "maps 3 to 'xxx"),
        ({3: "\ud800"}, r"no numpy file of captions \('utf-8' codec"),
        (np.array([3, "a"], object), "must hold one dict"),
        (np.array([{3: "a"}, {4: "b"}], object), "must hold one dict"),
        ({3: np.float64(2)}, "holds a value of type 'f8', must be integers and text"),
        (np.arange(3), "must hold a pickled dict, holds int64"),
    ],
)
def test_other_captions_are_rejected(tmp_path, content, message):
    (tmp_path / "stimuli").mkdir()
    path = write_names(tmp_path, content)
    with pytest.raises(DataError, match=message):
        read_vid2name(path)


def test_damaged_captions_are_rejected(tmp_path):
    (tmp_path / "stimuli").mkdir()
    path = write_names(tmp_path, names_of())
    whole = path.read_bytes()
    for length in (0, 5, 100, 140, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"vid2name\.npy: "):
            read_vid2name(path)
    path.unlink()
    with pytest.raises(DataError, match=r"vid2name\.npy: no such file"):
        read_vid2name(path)


def bomb(tmp_path, pickled):
    """A numpy file around a pickle, without its STOP."""
    header = io.BytesIO()
    np.save(header, np.array({}, object), allow_pickle=True)
    path = tmp_path / "vid2name.npy"
    path.write_bytes(header.getvalue()[: header.getvalue().index(b"\n") + 1] + pickled + b".")
    return path


def doubled(times):
    """Lists in lists: a few bytes hold 2 ** times of them."""
    inner = b"]q\x00"
    for i in range(times):
        inner = b"](" + inner + b"h%ceq%c" % (i, i + 1)
    return inner


LISTS_IN_LISTS = doubled(60)
TEXT = b"X" + struct.pack("<i", 2**20) + b"x" * 2**20 + b"q\x00"
LATIN = b"X\x06\x00\x00\x00latin1q\x01"
ENCODED = b"c_codecs\nencode\nh\x00h\x01\x86R"
FLOAT = b"G" + struct.pack(">d", 1.0)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"}K\x01" + LISTS_IN_LISTS + b"s", "maps 1 to a list"),
        (b"}" + LISTS_IN_LISTS + b"K\x01s", "holds a list as a key"),
        (b"cnumpy\ndtype\n" + LISTS_IN_LISTS + b"\x85R", "holds a number type called a list"),
        (
            b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00U1\x85R"
            b"\x8a\x05\x00\x00\x00\x00\x7f\x86R",
            "holds a number without a type or bytes",
        ),
        (b"}\x8a\x09" + b"\xff" * 8 + b"\x1fX\x01\x00\x00\x00as", "holds a key beyond 1,1"),
        (b"}c__builtin__\ncomplex\n" + FLOAT * 2 + b"\x86RK\x01s", "holds a complex as a key"),
        (TEXT + LATIN + ENCODED * 2000, "builds far more than it holds"),
        (b"]" * 5001, "holds more than 5,000 instructions"),
    ],
)
def test_captions_made_to_exhaust_the_machine_are_rejected_at_once(
    tmp_path, monkeypatch, pickled, message
):
    monkeypatch.setattr(vid2name, "MOST_INSTRUCTIONS", 5000)
    path = bomb(tmp_path, b"\x80\x02" + pickled)
    with pytest.raises(DataError, match=message) as caught:
        read_vid2name(path)
    assert len(str(caught.value)) < 400


def test_one_caption_may_stand_for_many_videos(tmp_path):
    start = b"\x80\x02}K\x00X\x06\x00\x00\x00 a b  q\x00s"
    keys = b"".join(b"M" + struct.pack("<H", video) + b"h\x00s" for video in range(1, 1000))
    assert read_vid2name(bomb(tmp_path, start + keys)) == dict.fromkeys(range(1000), "a b")


def test_no_captions_are_as_large_as_this(tmp_path):
    path = tmp_path / "vid2name.npy"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(DataError, match=r"vid2name\.npy: 67,108,865 bytes, far more than captions"):
        read_vid2name(path)
