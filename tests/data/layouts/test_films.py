"""Studies whose runs show long films: cut, divided and repeated, against plain computations."""

import re
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glfa_jax import config
from glfa_jax.data import DataError, flatmap
from glfa_jax.data.layouts import Problems, Run
from glfa_jax.data.layouts.cutting import Showing, apart, cut, divide, numbered
from glfa_jax.data.layouts.dividing import Division
from glfa_jax.data.layouts.film_captions import captions_of
from glfa_jax.data.layouts.naming import Name
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.look import command as look
from glfa_jax.data.planning import plan
from glfa_jax.data.signals import Signal
from glfa_jax.data.tables import stop
from glfa_jax.data.video import Part, write_mp4
from glfa_jax.preparation import prepare
from tests.data.conftest import write_gifti
from tests.data.scans import write_cifti
from tests.data.test_prepare_layouts import drawn, z_scored

TR, VOLUMES = 2.0, 66
SECONDS = {"a.mp4": 120, "b.mp4": 124}
EVENTS = "onset\tduration\ttrial_type\tstim_file\n"


def scan(root: Path, run: int, task: str = "movie", subject: str = "01") -> Path:
    folder = root / f"sub-{subject}" / "func"
    name = f"sub-{subject}_task-{task}_run-{run}_space-fsLR_den-91k_bold.dtseries.nii"
    return folder / name


def events(root: Path, run: int, *rows: str, task: str = "movie", subject: str = "01") -> None:
    path = scan(root, run, task, subject)
    table = path.with_name(path.name.split("_space")[0] + "_events.tsv")
    table.write_text(EVENTS + "".join(f"{row}\n" for row in rows))


def write_run(root: Path, run: int, film: str, *, task: str = "movie", volumes: int = VOLUMES):
    """A run that shows a film from 4 s on, among other events; gives its series."""
    path = scan(root, run, task)
    series = write_cifti(path, volumes, step=TR, seed=run)
    (root / f"task-{task}_bold.json").write_text(f'{{"RepetitionTime": {TR}}}')
    rest = f"0\t4\tfixation\tn/a\n4\t{SECONDS[film]}\tmovie\t{film}"
    events(root, run, rest, "60.5\t0\tbutton\tn/a", task=task)
    return series


def write_films(root: Path) -> None:
    """A frame a second, brighter from frame to frame; described in stretches of their own."""
    (root / "stimuli").mkdir(parents=True)
    rows = ["stim_file\tonset\tcaption"]
    for film, seconds in SECONDS.items():
        frames = np.arange(seconds, dtype=np.uint8)[:, None, None, None]
        write_mp4(root / "stimuli" / film, np.tile(2 * frames, (1, 16, 16, 3)), frame_rate=1)
        rows += [f"{film}\t{onset}\t{film} from {onset} s on" for onset in range(0, seconds, 15)]
    (root / "stimuli" / "captions.tsv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two films, the first of which is shown again in the last run. Not to be changed."""
    root = tmp_path_factory.mktemp("films") / "bids"
    write_films(root)
    for run, film in ((1, "a.mp4"), (2, "b.mp4"), (3, "a.mp4")):
        write_run(root, run, film)
    return root


def settings(root: Path, **changes) -> config.Data:
    values = {
        "root": str(root),
        "store": str(root.parent / "store.zarr"),
        "subjects": ["01"],
        "task": "movie",
        "space": "fsLR",
        "films": {"seconds": 4},
        "split": {"test": ["run-3", "run-1"]},
        "window": 3,
        "map_size": 16,
        "frames": 2,
        "resolution": [16, 16],
    }
    return config.of({**values, **changes}, schema=config.Data)


def read(root: Path, **changes):
    problems = Problems(skip=False)
    study = read_study(settings(root, **changes), problems)
    assert not problems.missing.lines
    return study


def shown(study):
    """By run: the split and the clips by their numbers."""
    return {
        run.name: (run.split, [int(trial.clip.split("/")[1]) for trial in run.trials])
        for run in study.runs
    }


def test_films_are_cut_on_a_grid_and_shown_again_they_are_repeats(root):
    study = read(root)
    assert shown(study) == {
        "1": ("test", [*range(30)]),
        "2": ("train", [*range(31)]),
        "3": ("test", [*range(30)]),
    }
    first, _, again = study.runs
    assert [(t.clip, t.onset, t.duration) for t in first.trials[:2]] == [
        ("a.mp4/000", 4.0, 4.0),
        ("a.mp4/001", 8.0, 4.0),
    ]
    assert ({t.repeat for t in first.trials}, {t.repeat for t in again.trials}) == ({1}, {2})
    part = study.videos["b.mp4/007"]
    assert (part.path, part.start, part.duration) == (root / "stimuli" / "b.mp4", 28.0, 4.0)
    assert study.captions["a.mp4/003"] == "a.mp4 from 0 s on"  # of 12 to 16 s, most is before 15
    assert study.captions["a.mp4/007"] == "a.mp4 from 15 s on"  # of 28 to 32 s as much: the earlier
    assert study.notes == ()


def volumes_of(onset: float, *, lag: float, window: int, step: float, start: float, volumes: int):
    """The volumes of a window, found by looking at every volume; none where one was not taken."""
    every = np.arange(-60, volumes + 60)  # those before the first and after the last are not there
    far = np.abs(start + step * every - onset - lag).round(5)
    nearest = [volume for volume in every[far == far.min()] if volume >= 0]
    if not nearest and onset >= 0 and start <= step:  # the first volume may come a little late
        nearest = [0]
    whole = nearest[:1] if nearest and nearest[0] + window <= volumes else []
    return [first + i for first in whole for i in range(window)]


def windows(runs, *, volumes: int, data: config.Data) -> dict:
    """What planning cuts of runs: by split, the volumes of each window of the file's run."""
    signals = [(run, Signal(Path(), volumes - sum(run.dropped), 0, 0, 1.0, {}, ())) for run in runs]
    made = plan(signals, data=data, unreadable={}, problems=Problems(skip=False))
    found: dict = {"train": [], "test": []}
    for each in made.cuts:
        for trial, (_, window) in zip(each.run.trials, each.windows, strict=True):
            if window is not None:
                first = each.run.dropped[0] + window.first
                assert window.first + data.window <= each.signal.volumes
                found[each.run.split].append((trial, [*range(first, first + data.window)]))
    return found


def test_films_are_divided_by_time_with_a_gap(root):
    study = read(root, split={"by": "time", "test": "60%-"})
    # Clips of a.mp4 from 72 s on; a training clip ends 10 s before: the lag and three volumes.
    assert shown(study) == {
        "1_train": ("train", [*range(15)]),
        "1_test": ("test", [*range(18, 30)]),
        "2_train": ("train", [*range(16)]),  # from 74.4 s of 124 on, which no clip may lie across
        "2_test": ("test", [*range(19, 31)]),
        "3_train": ("train", [*range(15)]),
        "3_test": ("test", [*range(18, 30)]),
    }
    found = windows(study.runs, volumes=VOLUMES, data=settings(root))
    for trial, window in [*found["train"], *found["test"]]:
        times = {"lag": 4.0, "window": 3, "step": TR, "start": 0.0, "volumes": VOLUMES}
        assert window == volumes_of(trial.onset, **times)
    whole = write_cifti(root.parent / "again.dtseries.nii", VOLUMES, step=TR, seed=1)
    train, test = (np.concatenate(list(run.blocks())) for run in study.runs[:2])
    np.testing.assert_array_equal(train, whole[4:35])  # of the windows alone
    np.testing.assert_array_equal(test, whole[40:65])
    without = read(root, split={"by": "time", "test": "60%-", "gap_seconds": 0})
    # Clips of two volumes have windows of three: the last one would share a volume.
    assert shown(without)["1_train"] == ("train", [*range(17)])


def test_a_divided_run_of_two_files_and_dropped_volumes(tmp_path):
    root = tmp_path / "bids"
    write_films(root)
    series = np.random.default_rng(0).normal(1000, 10, (VOLUMES, 30)).astype(np.float32)
    for run, film in ((1, "a.mp4"), (2, "b.mp4")):
        write_run(root, run, film)
        stem = str(scan(root, run)).partition("_space")[0]
        for side, part in (("L", series[:, :14]), ("R", series[:, 14:])):
            write_gifti(Path(f"{stem}_hemi-{side}_space-fsaverage5_bold.func.gii"), part)
    options = {"space": "fsaverage5", "drop_volumes": [2, 1]}
    study = read(root, split={"by": "time", "test": "60%-"}, **options)
    _, test, *_ = study.runs
    np.testing.assert_array_equal(np.concatenate(list(test.blocks())), series[40:65])
    assert (test.dropped, test.start_time) == ((40, 1), 80.0)
    found = windows(study.runs, volumes=VOLUMES, data=settings(root, **options))
    numbers = {trial.clip: volumes for trial, volumes in found["train"]}
    assert numbers["a.mp4/000"] == [4, 5, 6]


def test_a_study_of_clips_needs_no_columns_of_its_own(tmp_path):
    root = tmp_path / "bids"
    (root / "stimuli").mkdir(parents=True)
    rows = ["stim_file\tcaption", *(f"{clip}.mp4\t{clip}" for clip in "abxy")]
    (root / "stimuli" / "captions.tsv").write_text("\n".join(rows) + "\n")
    for run, clips in ((1, "ab"), (2, "xy"), (3, "ba"), (4, "xxy")):
        path = scan(root, run)
        write_cifti(path, 12, step=TR)
        path.with_name(f"{path.name.split('.')[0]}.json").write_text('{"RepetitionTime": 2}')
        shows = [f"{4 * i}\t2\tvideo\t{clip}.mp4" for i, clip in enumerate(clips)]
        events(root, run, "0\t2\tfixation\tn/a", *shows)
        for clip in clips:
            (root / "stimuli" / f"{clip}.mp4").touch()
    for split in ({"test": "run-[24]"}, {"by": "stimulus", "test": ["x.mp4", "y.mp4"]}):
        study = read(root, films=None, split=split)
        assert [run.split for run in study.runs] == ["train", "test", "train", "test"]
        repeats = [[(t.clip[0], t.repeat) for t in run.trials] for run in study.runs]
        assert repeats[::2] == [[("a", 1), ("b", 1)], [("b", 2), ("a", 2)]]
        assert repeats[1::2] == [[("x", 1), ("y", 1)], [("x", 2), ("x", 3), ("y", 2)]]
    # In turn within a run, nothing of train is far enough from test.
    turn = {"by": "stimulus", "test": ["b.mp4", "[xy].mp4"]}
    study = read(root, films=None, split=turn)
    assert [run.split for run in study.runs] == 4 * ["test"]
    assert study.notes == (
        "training clips too near to a test clip of their run are left out, 2 of them "
        "(data.split.gap_seconds)",
    )
    with pytest.raises(DataError, match=r"^sub-01 run 1: data\.split makes a stretch of 1 volumes"):
        read(root, films=None, split={**turn, "gap_seconds": 0}, window=1)


def test_films_are_divided_by_stimulus_and_what_neither_names_is_left_out(root):
    study = read(root, split={"by": "stimulus", "test": ["b*"]})
    assert {name: split for name, (split, _) in shown(study).items()} == {
        "1": "train",
        "2": "test",
        "3": "train",
    }
    assert [run.trials[0].repeat for run in study.runs] == [1, 1, 2]
    study = read(root, split={"by": "run", "test": "run-02", "train": "task-movie_run-1"})
    assert {name: split for name, (split, _) in shown(study).items()} == {"1": "train", "2": "test"}
    assert study.notes == ("in neither train nor test of data.split, left out: sub-01 run 3",)


def test_stretches_that_the_scan_cuts_off_are_missing():
    """Clips of 4 s, two volumes each: 15 train, 15 test, 15 train, with a gap of three clips."""
    trials = [trial for trial, _ in cut(Showing("f", 0.0, duration=204.0), seconds=4)]
    labelled = [
        (trial, "test" if 18 <= i < 33 else "train")
        for i, trial in enumerate(trials)
        if i % 18 < 15
    ]

    def divided(volumes: int, onset: float = 0.0):
        moved = [(replace(trial, onset=trial.onset + onset), split) for trial, split in labelled]
        run = Run("01", "1", "train", TR, 0.0, (), (Path("scan"),), (), lambda: iter(()))
        runs = divide(run, moved, lag=4.0, window=3, volumes=volumes)
        return [
            (
                each.name,
                [int(trial.clip[2:]) for trial in each.trials],
                (each.dropped[0], volumes - each.dropped[1]),
            )
            for each in runs
        ]

    first, middle, last = [*range(15)], [*range(18, 33)], [*range(36, 51)]
    assert divided(105) == [
        ("1_train", first, (2, 33)),
        ("1_test", middle, (38, 69)),
        ("1_train2", last, (74, 105)),
    ]
    assert divided(94)[2] == ("1_train2", last, (74, 94))
    # One volume less: the clips are missing in the other stretch, or in none.
    assert divided(93)[0][:2] == ("1_train", [*first, *last])
    assert [name for name, *_ in divided(93)] == ["1_train", "1_test"]
    begin = divided(105, onset=-40.0)  # before the scan
    assert begin[0][:2] == ("1_test", middle)
    assert begin[1][:2] == ("1_train", [*last, *first])
    kept = Division(config.Split(by="stimulus", test=("g",)), lag=4.0, window=3)
    run = Run(
        *("01", "1", "train", TR, 0.0),
        tuple(replace(trial, film="g" if split == "test" else "f") for trial, split in labelled),
        *((Path("scan"),), (), lambda: iter(())),
    )
    videos = {trial.clip: Part(Path("f")) for trial in run.trials}
    name = Name.parse(Path("sub-01_task-movie_run-1_bold.nii.gz"))
    assert name is not None
    (left,) = kept.parts(run, name, videos=videos, volumes=lambda: 57)
    assert (left.split, len(left.trials)) == ("train", 30)
    assert [*kept.notes()] == [
        "sub-01 run 1: its scan holds less than 20 volumes of what is for test there, 15 clips are "
        "left out"
    ]
    with pytest.raises(
        DataError, match=r"^sub-01 run 1: of no stretch that data\.split makes does"
    ):
        kept.parts(run, name, videos=videos, volumes=lambda: 21)


@st.composite
def cases(draw):
    step = draw(st.sampled_from([0.8, 1.0, 1.49, 2.0, 2.5]))
    return {
        "step": step,
        "seconds": step * draw(st.sampled_from([1.0, 1.3, 2.0, 4.1])),
        "start": draw(st.sampled_from([0.0, step / 2, 1.7 * step])),
        "onset": draw(st.floats(-5, 30)),
        "lag": draw(st.sampled_from([0.0, 2.9, 4.0, 6.0])),
        "window": draw(st.integers(1, 6)),
        "gap": draw(st.sampled_from([0.0, 1.0, 7.5, 20.0])),
        "test": draw(st.lists(st.floats(0, 1), min_size=2, max_size=4)),
    }


@hypothesis.settings(max_examples=40, deadline=None)
@given(cases())
def test_no_test_window_shares_a_volume_with_a_training_window(case):
    step, window, lag = case["step"], case["window"], case["lag"]
    volumes = 200
    film = Showing("f", case["onset"], duration=(volumes - 10) * step)
    trials = [trial for trial, _ in cut(film, seconds=case["seconds"])]
    limits = [film.onset + film.duration * share for share in sorted(case["test"])]
    labelled = [
        (trial, "test" if np.searchsorted(limits, trial.onset) % 2 else "train") for trial in trials
    ]
    scan = Path("scan")
    run = Run("01", "1", "train", step, case["start"], tuple(trials), (scan,), (), lambda: iter(()))
    options = {"lag": lag, "window": window, "volumes": volumes}
    kept = apart(run, labelled, lag=lag, window=window, gap=case["gap"])
    try:
        runs = divide(run, kept, **options)
    except DataError:  # of short stretches
        runs = []
    hypothesis.assume({each.split for each in runs} == {"train", "test"})
    data = config.Data(root="r", store="s", subjects=("01",), lag_seconds=lag, window=window)
    found = windows(numbered(runs), volumes=volumes, data=data)
    used = {split: {v for _, window in found[split] for v in window} for split in found}
    assert not used["train"] & used["test"]
    clock = {**options, "step": step, "start": case["start"]}
    for trial, where in [*found["train"], *found["test"]]:
        assert where == volumes_of(trial.onset, **clock)
    for one, _ in found["train"]:
        for other, _ in found["test"]:
            between = abs(one.onset - other.onset) - case["seconds"]
            assert between > case["gap"] - 0.01
    assert sum(len(each.trials) for each in runs) == len(kept)
    # No clip of the test part gives way, whatever the gap, but for those of a stretch of which
    # the scan holds too little.
    used_clips = {trial.clip for trial, _ in found["test"]}
    for split, group in groupby(kept, key=lambda each: each[1]):
        whole = {trial.clip: volumes_of(trial.onset, **clock) for trial, _ in group}
        there = {clip for clip, volumes_there in whole.items() if volumes_there}
        if split == "test" and there and not there & used_clips:
            taken = [volume for clip in there for volume in whole[clip]]
            assert max(taken) - min(taken) < 20
            assert min(taken) < 10 or max(taken) >= volumes - 10
        elif split == "test":
            assert there <= used_clips
    held = {trial.clip for trial, split in labelled if split == "test"}
    assert held == {trial.clip for trial, split in kept if split == "test"}


def test_a_study_without_events_is_told_what_its_runs_show(tmp_path):
    root = tmp_path / "bids"
    write_films(root)
    for run, task in ((1, "train"), (2, "train"), (1, "test")):
        write_run(root, run, "a.mp4", task=task)
    for table in root.glob("*/*/*_events.tsv"):
        table.unlink()
    second = {"runs": "task-train_run-2", "film": "a.mp4", "start": 62, "onset": 2, "duration": 50}
    first = {"runs": ["task-train_run-1"], "film": "a.mp4", "onset": -3}
    stated = [first, second, {"runs": "task-test*", "film": "stimuli/b.mp4"}]
    told = {
        "task": ["tr*", "test"],
        "films": {"seconds": 4, "shown": stated},
        "split": {"test": "task-test*"},
    }
    study = read(root, **told)
    assert shown(study) == {
        "task-test_run-1": ("test", [*range(31)]),
        "task-train_run-1": ("train", [*range(30)]),
        "task-train_run-2": ("train", [*range(16, 28)]),  # whole clips of 62 to 112 s
    }
    again = study.runs[2].trials
    assert (again[0].clip, again[0].onset, again[0].repeat) == ("a.mp4/016", 4.0, 2)
    assert study.runs[1].trials[0].onset == -3.0
    # A film ends long before its run: another one was meant, or its duration is to be said.
    found = windows(study.runs, volumes=VOLUMES, data=settings(root, **told))
    assert len(found["train"]) == 30 + 12
    with pytest.raises(
        DataError,
        match=r"sub-01 run task-train_run-1: its film ends at 117 s, but the run at 148 s; name ",
    ):
        windows(study.runs[1:], volumes=74, data=settings(root, **told))
    without = {**told, "films": {"seconds": 4, "shown": [first, *stated[2:]]}}
    with pytest.raises(DataError, match=r"task-train_run-2_events\.tsv: no such file"):
        read(root, **without)
    never = {**told, "films": {"shown": [*stated, {"runs": "run-9", "film": "a.mp4"}]}}
    with pytest.raises(DataError, match=r"^data\.films\.shown\.3\.runs: 'run-9' fits no run$"):
        read(root, **never)


@pytest.mark.parametrize("spelled", ["./a.mp4", "stimuli//a.mp4", "stimuli/./a.mp4"])
def test_a_film_is_one_however_the_configuration_spells_it(root, spelled):
    """Else its clips would be in both parts unseen."""
    study = read(root, films={"seconds": 4, "shown": [{"runs": "run-1", "film": spelled}]})
    assert [run.trials[0].clip for run in study.runs] == ["a.mp4/000", "b.mp4/000", "a.mp4/000"]
    assert [run.trials[0].repeat for run in study.runs] == [1, 1, 2]


def test_the_caption_of_a_clip_is_that_of_most_of_its_seconds(root, tmp_path):
    rows = (
        (0, 1.2, "a dog"),
        (1.2, 2.6, "a cat"),
        (2.6, 4, "a dog"),
        (4, 6, "rain"),
        (6, 90, "sun"),
    )
    table = tmp_path / "captions.tsv"
    lines = (f"a.mp4\t{begin}\t{end - begin}\t{text}\n" for begin, end, text in rows)
    table.write_text("stim_file\tonset\tduration\tcaption\n" + "".join(lines))
    stimuli = root / "stimuli"
    film = stimuli / "a.mp4"
    clips = {"0": Part(film, 0, 4), "1": Part(film, 4, 4), "2": Part(film, 96, 4)}
    found = captions_of(clips, table, stimuli, failed=stop)
    assert found == {"0": "a dog", "1": "rain"}  # of 4 to 8 s both hold 2 s
    # A clip that is a whole file lasts as long as the file.
    lines = ("a.mp4\t0\t70\tmost\n", "a.mp4\t70\tn/a\tthe end\n", "c.mp4\t0\tn/a\tnone\n")
    table.write_text("stim_file\tonset\tduration\tcaption\n" + "".join(lines))
    whole = {"a.mp4": Part(film), "c.mp4": Part(stimuli / "c.mp4")}
    assert captions_of(whole, table, stimuli, failed=stop) == {"a.mp4": "most"}


def test_films_do_not_go_on_into_each_other(root):
    def films(onset):
        first = {"runs": "run-1", "film": "b.mp4", "onset": onset}
        return {"seconds": 4, "shown": [first, {"runs": "run-1", "film": "a.mp4", "onset": -120}]}

    assert shown(read(root, films=films(-0.9)))["1"] == ("test", [*range(31), *range(30)])
    message = (
        r"^data\.films\.shown: a\.mp4 is shown until 0 s, but b\.mp4 from -1\.5 s on; state a "
        "duration$"
    )
    with pytest.raises(DataError, match=message):
        read(root, films=films(-1.5))


def test_an_image_between_films_is_passed_over(tmp_path):
    root = tmp_path / "bids"
    write_films(root)
    for run in (1, 2):
        write_run(root, run, "ab"[run - 1] + ".mp4")
    cross = root / "stimuli" / "fix.png"
    Image.new("RGB", (16, 16)).save(cross)
    events(root, 1, "0\t4\tfixation\tfix.png", "4\t120\tmovie\ta.mp4")
    study = read(root, split={"test": "run-2"})
    assert shown(study)["1"] == ("train", [*range(30)])
    assert [note.split("lasts")[0] for note in study.notes] == [f"{cross}: "]
    events(root, 1, "0\tn/a\tfixation\tfix.png")
    with pytest.raises(DataError, match=r"run-1_events\.tsv: shows nothing for as long as a clip"):
        read(root, split={"test": "run-2"})


def test_a_film_of_the_configuration_is_a_file(root):
    films = {"seconds": 4, "shown": [{"runs": "run-1", "film": "stimuli/"}]}
    with pytest.raises(DataError, match=r"^data\.films\.shown\.0\.film must name a file inside st"):
        read(root, films=films)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"test": "run-7"}}, r"^data\.split\.test: 'run-7' fits no run$"),
        (
            {"split": {"test": "run-1", "train": ["run-2", "run-[13]"]}},
            r"^sub-01 run 1: belongs to both parts of data\.split, to train by 'run-\[13\]' and to "
            "test by 'run-1'$",
        ),
        (
            {"split": {"by": "stimulus", "test": ["b.mp4", "c*"]}},
            r"^data\.split\.test: 'c\*' fits no stimulus that is shown$",
        ),
        (
            {"split": {"by": "time", "test": ["60-", "300-400"]}},
            r"^data\.split\.test: '300-400' fits no clip of any film$",
        ),
        (
            {"split": {"by": "time", "test": "80%-100%"}},
            r"^sub-01 run 1: data\.split makes a stretch of 13 volumes, which needs 20 to",
        ),
        (
            {"films": {"seconds": 1.5}},
            r"^data\.films\.seconds: clips of 1\.5 s are shorter than a volume, must be at least "
            r"the repetition time, 2 s$",
        ),
        (
            {"films": {"seconds": 200}},
            r"events\.tsv: shows nothing for as long as a clip, data\.films\.seconds of 200 s$",
        ),
        (
            {"split": None},
            r"run-1_events\.tsv: trial_type must be train or test throughout, is fixation, movie, "
            "button; or let data.split say what is for test$",
        ),
    ],
)
def test_each_mistake_in_the_configuration_is_one_sentence(root, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        read(root, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"test": "movie"}}, "split.test: must name runs by BIDS entities, such as"),
        ({"split": {"test": []}}, "split.test: must hold at least 1"),
        ({"split": {"by": "time", "test": "9-3"}}, "split.test: must be a stretch of film from-to"),
        ({"split": {"by": "time", "test": "0-120%"}}, "split.test: must be a stretch of film"),
        ({"split": {"test": "run-1", "gap_seconds": 3}}, "split.gap_seconds: has no use by run"),
        (
            {"split": {"by": "time", "test": "9-"}, "films": None},
            "split: by time divides long films",
        ),
        (
            {"films": {"shown": [{"runs": "run-1", "film": "../a.mp4"}]}},
            "film: must name a file in",
        ),
        (
            {"films": {"shown": [{"runs": "run-1", "film": "a.mp4"}]}, "split": None},
            "split: must say what is for test",
        ),
    ],
)
def test_what_makes_no_sense_is_rejected_before_anything_is_read(root, changes, message):
    with pytest.raises(config.ConfigError) as caught:
        settings(root, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "4\t180\tmovie\ta.mp4",
            r"a\.mp4: lasts 120 s, but \S+run-1_events\.tsv says that it is shown up to 180 s$",
        ),
        ("4\t0\tmovie\ta.mp4", r"line 2: duration must be a number of seconds"),
        ("0\t9\tfixation\tn/a", r"run-1_events\.tsv: lists no trials with a stim_file$"),
    ],
)
def test_each_mistake_in_the_events_is_one_sentence(tmp_path, row, message):
    root = tmp_path / "bids"
    write_films(root)
    for run, film in ((1, "a.mp4"), (2, "b.mp4")):
        write_run(root, run, film)
    events(root, 1, row)
    with pytest.raises(DataError, match=message):
        read(root, split={"test": "run-2"})


def test_a_film_may_be_shown_beyond_the_end_of_its_run_but_not_begin_there(tmp_path):
    root = tmp_path / "bids"
    write_films(root)
    for run, film in ((1, "a.mp4"), (2, "b.mp4")):
        write_run(root, run, film)
    events(root, 1, "100\tn/a\tmovie\ta.mp4")  # to its end, which is after that of the run
    study = read(root, split={"test": "run-2"})
    assert shown(study)["1"] == ("train", [*range(30)])
    found = windows(study.runs, volumes=VOLUMES, data=settings(root))
    assert [trial.clip for trial, _ in found["train"]] == [f"a.mp4/{i:03d}" for i in range(6)]
    events(root, 1, "132\t120\tmovie\ta.mp4")
    study = read(root, split={"test": "run-2"})
    with pytest.raises(
        DataError,
        match=r"sub-01 run 1: film a\.mp4 starts at 132 s, beyond the end of the run at 132",
    ):
        windows(study.runs, volumes=VOLUMES, data=settings(root))


def test_a_study_of_films_that_is_not_all_there_becomes_a_store(tmp_path, monkeypatch, capsys):
    """Prepared and looked at, against z-scores of the volumes of a stretch by themselves."""
    monkeypatch.setattr(flatmap, "of", lambda _: drawn())
    root = tmp_path / "bids"
    write_films(root)
    series = {run: write_run(root, run, film) for run, film in ((1, "a.mp4"), (3, "a.mp4"))}
    write_run(root, 2, "b.mp4")
    (root / "stimuli" / "b.mp4").unlink()
    scan(root, 5).symlink_to("../.git/annex/objects/none")
    events(root, 5, "4\t120\tmovie\ta.mp4")
    data = settings(root, split={"by": "time", "test": "60%-"})
    store = prepare(data)
    lines = ("not there: run 5 of subject 01", f"not there: b.mp4 in {root / 'stimuli'}")
    assert capsys.readouterr().out.splitlines()[:2] == list(lines)
    # Of two runs, clips 15, 16 and 17: the gap is 10 s.
    near = "training clips too near to a test clip of their run are left out, 6 of them (data.split"
    assert store.attributes.notes == [*lines, f"{near}.gap_seconds)"]
    clips = store.attributes.clips
    assert clips["train"] == 2 * [f"a.mp4/{i:03d}" for i in range(15)]
    assert clips["test"] == [f"a.mp4/{i:03d}" for i in range(18, 30)]
    assert (store.attributes.repeats, store.attributes.clip_seconds) == ({"01": 2}, 4.0)
    cortex = drawn()
    stretches = {"train": slice(4, 35), "test": slice(40, 65)}
    maps = {
        (run, split): np.where(
            cortex.mask, z_scored(cortex.to_map(np.nan_to_num(values[part])), len(values[part])), 0
        )
        for run, values in series.items()
        for split, part in stretches.items()
    }
    train = store.fmri("train", range(30), subjects=["01"])[:, 0]
    test = store.fmri("test", range(12), subjects=["01"])[:, 0]
    for clip in range(15):  # two volumes a clip
        for place, run in ((0, 1), (15, 3)):
            expected = maps[run, "train"][2 * clip : 2 * clip + 3]
            np.testing.assert_allclose(train[place + clip], expected, atol=3e-3)
    for clip in range(12):
        both = [maps[run, "test"][2 * clip : 2 * clip + 3] for run in (1, 3)]
        np.testing.assert_allclose(test[clip], np.mean(both, axis=0), atol=3e-3)
    brightness = store.video("test", range(12)).mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(brightness, 2 * (4 * np.arange(18, 30) + 2), atol=4)
    assert look([str(data.store), "--clips", "1"]) == 0
    prepare(data)
    assert "up to date, reused" in capsys.readouterr().out
    page = data.store.with_suffix(".html").read_text()
    assert all(line in page for line in lines)
    assert "1_train" in page


def test_the_configurations_of_the_page_are_read_and_its_tables_complete():
    page = (Path(__file__).parents[3] / "docs" / "films.md").read_text()
    whole, *parts = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    data = config.of(whole).data
    assert (data.films.seconds, data.split.by, data.split.test) == (4, "time", ("80%-",))
    assert [key for part in parts for key in part] == ["films", "split", "split", "split"]
    for part in parts:
        config.of({**whole, "data": {**whole["data"], **part}})
    listed = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    shown = {f"shown.{name}" for name in config.Shown.model_fields}
    assert listed == {*config.Films.model_fields, *config.Split.model_fields, *shown}
