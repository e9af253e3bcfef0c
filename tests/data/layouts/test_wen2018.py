"""The benchmark's folders, with few vertices and true numbers of volumes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, wen2018
from glfa_jax.data.layouts.reading import read_study, read_wordless
from tests.data.layouts.reading import rejects
from tests.data.scans import write_cifti

TRAIN, TEST = range(1, 19), range(1, 6)


def scan(root: Path, subject: int, film: str, repeat: int) -> Path:
    folder = root / "video_fmri_dataset" / f"subject{subject}" / "fmri" / film / "cifti"
    return folder / f"{film}_{repeat}_Atlas.dtseries.nii"


def captions_of(root: Path) -> Path:
    films = [*(f"seg{k}" for k in TRAIN), *(f"test{k}" for k in TEST)]
    rows = [f"{film}/{clip:03d}\tclip {clip} of {film}" for film in films for clip in range(240)]
    path = root / "captions.tsv"
    path.write_text("\n".join(["stim_file\tcaption", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Subject 1 whole, subject 3 without repeat 9 of test2; all films are links to four files."""
    root = tmp_path_factory.mktemp("wen")
    for volumes in (245, 246):
        for seed in (1, 2):
            write_cifti(root / f"{volumes}_{seed}.dtseries.nii", volumes, seed=seed)
    (root / "stimuli").mkdir()
    for film, volumes, repeats in (
        *((f"seg{k}", 245, 2) for k in TRAIN),
        *((f"test{k}", 245 if k == 1 else 246, 10) for k in TEST),
    ):
        (root / "stimuli" / f"{film}.mp4").touch()
        for repeat in range(1, repeats + 1):
            for subject in (1, 3):
                if (subject, film, repeat) != (3, "test2", 9):
                    path = scan(root, subject, film, repeat)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(root / f"{volumes}_{2 - repeat % 2}.dtseries.nii")
    captions_of(root)
    return root


def settings(root, **changes) -> config.Data:
    values = {
        "layout": "wen2018",
        "root": root,
        "store": root / "store.zarr",
        "subjects": ("1", "3"),
        "space": "fsLR",
        "captions": root / "captions.tsv",
    }
    return config.Data(**{**values, **changes})


@pytest.fixture(scope="module")
def problems():
    """What is said while `study` is read."""
    return Problems(skip=False)


@pytest.fixture(scope="module")
def study(root, problems):
    return read_study(settings(root), problems)


def test_films_are_cut_into_clips_of_two_seconds(root, study):
    assert len([run for run in study.runs if run.subject == "1"]) == 18 * 2 + 5 * 10
    for split, films in (("train", 18), ("test", 5)):
        runs = [run for run in study.runs if run.split == split]
        clips = {trial.clip for run in runs for trial in run.trials}
        assert len(clips) == 240 * films  # 4,320 and 1,200
    run = next(run for run in study.runs if (run.subject, run.name) == ("1", "seg3_2"))
    assert run.scans == run.files == (scan(root, 1, "seg3", 2),)
    assert (run.repetition_time, run.start_time, run.tail) == (2.0, 0.0, 4)
    trial = run.trials[17]
    assert (trial.clip, trial.onset, trial.duration, trial.repeat) == ("seg3/017", 34.0, 2.0, 2)
    part = study.videos["seg3/017"]
    assert (part.path, part.start, part.duration) == (root / "stimuli" / "seg3.mp4", 34.0, 2.0)
    assert study.captions["test5/239"] == "clip 239 of test5"
    assert {root / "captions.tsv", root / "stimuli" / "test5.mp4", *run.scans} <= set(study.files)
    assert len(set(study.files)) == len(study.files)


@pytest.mark.parametrize(("film", "volumes", "first"), [("seg7", 245, 1), ("test2", 246, 2)])
def test_volumes_before_the_film_are_dropped_and_those_after_it_are_tail(
    study, tmp_path, film, volumes, first
):
    whole = write_cifti(tmp_path / "a.dtseries.nii", volumes, seed=1)  # as the fixture has it
    run = next(run for run in study.runs if run.name == f"{film}_1")
    series = np.concatenate(list(run.blocks()))
    np.testing.assert_array_equal(series, whole[first:])
    np.testing.assert_array_equal(series[: -run.tail], whole[first : first + 240])
    # Two volumes of lag: the last clip's window still finds three.
    assert run.trials[-1].onset / 2 + 2 + 3 <= len(series)


def test_a_missing_repeat_is_said(study, problems):
    assert problems.missing.lines == ["not there: test2 (repeat 9) of subject 3"]
    repeats = [
        run.trials[0].repeat
        for run in study.runs
        if run.subject == "3" and run.name.startswith("test2_")
    ]
    assert repeats == [1, 2, 3, 4, 5, 6, 7, 8, 10]


@pytest.fixture
def broken(root, tmp_path):
    """Subject 1's own folder to damage, of two films."""
    for film in ("seg1", "test1"):
        for repeat in (1, 2):
            path = scan(tmp_path, 1, film, repeat)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scan(root, 1, film, repeat), path)
    shutil.copytree(root / "stimuli", tmp_path / "stimuli")
    captions_of(tmp_path)
    return tmp_path


@pytest.fixture
def few_films(monkeypatch):
    monkeypatch.setattr(
        wen2018, "FILMS", [film for film in wen2018.FILMS if film.name in ("seg1", "test1")]
    )


@pytest.mark.usefixtures("few_films")
@pytest.mark.parametrize("volumes", [240, 244, 247])
def test_another_number_of_volumes_is_rejected(broken, volumes):
    write_cifti(scan(broken, 1, "seg1", 2), volumes)
    message = rf"seg1_2_Atlas\.dtseries\.nii: {volumes} volumes, must be 245 or 246"
    study = rejects(message, settings(broken, subjects=("1",)))
    assert [run.name for run in study.runs] == ["seg1_1", "test1_1", "test1_2"]


def test_a_partial_download_is_used_and_said_in_one_line(broken):
    problems = Problems(skip=False)
    study = read_study(settings(broken, subjects=("1",)), problems)
    assert [run.name for run in study.runs] == ["seg1_1", "seg1_2", "test1_1", "test1_2"]
    lacks = "seg2 to seg18, test1 (repeats 3 to 10) and test2 to test5"
    assert problems.missing.lines == [f"not there: {lacks} of subject 1"]
    assert study.notes == ()
    for film in ("seg1", "test1"):
        shutil.rmtree(scan(broken, 1, film, 1).parent)
    rejects(
        r"nothing of subject 1 is there, neither seg1 to seg18 and test1 to test5$",
        settings(broken, subjects=("1",)),
    )


@pytest.mark.usefixtures("few_films")
def test_a_repeat_that_was_not_fetched_is_not_there(broken):
    gone = scan(broken, 1, "seg1", 2)
    gone.unlink()
    gone.symlink_to("none")
    problems = Problems(skip=False)
    study = read_study(settings(broken, subjects=("1",)), problems)
    assert "seg1_2" not in {run.name for run in study.runs}
    lacks = "seg1 (repeat 2) and test1 (repeats 3 to 10)"
    assert problems.missing.lines == [f"not there: {lacks} of subject 1"]


@pytest.mark.usefixtures("few_films")
def test_other_mistakes(broken):
    study = rejects(
        r"subject2/fmri: no such folder; subject 2 has no scans",
        settings(broken, subjects=("1", "2")),
    )
    assert {run.subject for run in study.runs} == {"1"}
    (broken / "stimuli" / "seg1.mp4").unlink()
    problems = Problems(skip=False)
    study = read_study(settings(broken, subjects=("1",)), problems)
    assert problems.missing.lines[1:] == [f"not there: seg1.mp4 in {broken / 'stimuli'}"]
    assert {run.name for run in study.runs} == {"test1_1", "test1_2"}
    table = (broken / "captions.tsv").read_text().splitlines()
    gone = ("test1/000", "test1/001", "seg1/")
    (broken / "captions.tsv").write_text(
        "\n".join(row for row in table if not row.startswith(gone)) + "\n"
    )
    (broken / "stimuli" / "seg1.mp4").touch()
    study = rejects(
        r"captions\.tsv: has no caption for clip seg1/000 and 241 more",
        settings(broken, subjects=("1",)),
    )
    assert [len(run.trials) for run in study.runs] == [238, 238]
    for change, message in (
        (
            {"space": "fsaverage5"},
            r"data\.space: must be fsLR or MNI152NLin6Asym for layout wen2018, is fsaverage5",
        ),
        ({"captions": None}, r"data\.captions: .* columns stim_file .* and caption$"),
        ({"root": broken / "none"}, r"none: no such study folder"),
    ):
        with pytest.raises(DataError, match=message):
            read_study(settings(**{"root": broken, **change}), Problems(skip=True))


@pytest.mark.usefixtures("few_films")
def test_captions_of_other_groups_go_to_the_clips_in_order(broken):
    for split, film in (("train", "seg1"), ("test", "test1")):
        np.save(
            broken / f"text_{split}_256_3hz.npy",
            np.array([[[f"{film} {clip}"] * 2 for clip in range(240)]]),
        )
    named = settings(broken, subjects=("1",), captions=broken / "text_train_256_3hz.npy")
    study = read_study(named, Problems(skip=False))
    assert study.captions["seg1/000"] == "seg1 0"
    assert study.captions["test1/239"] == "test1 239"
    assert {named.captions, broken / "text_test_256_3hz.npy"} <= set(study.files)
    assert len(set(study.files)) == len(study.files)


@pytest.mark.usefixtures("few_films")
def test_a_study_whose_captions_are_still_to_be_written_has_all_of_its_clips(broken):
    study = read_wordless(settings(broken, subjects=("1",), captions=None), Problems(skip=False))
    assert set(study.captions) == set(study.videos)
    assert len(study.videos) == 480
    assert set(study.captions.values()) == {""}
    (broken / "stimuli" / "seg1.mp4").unlink()  # which is missing all the same
    problems = Problems(skip=False)
    study = read_wordless(settings(broken, subjects=("1",)), problems)
    assert len(study.videos) == 240
    assert problems.missing.lines[1:] == [f"not there: seg1.mp4 in {broken / 'stimuli'}"]
