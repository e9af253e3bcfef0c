"""The films of the HCP at 7 tesla: the grid of clips, the clip that ends all films, mistakes."""

from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, hcp7t
from glfa_jax.data.layouts.reading import read_study, read_wordless
from tests.data.layouts.reading import load, rejects
from tests.data.public_studies import HCP_SCANS, hcp_scan, write_hcp7t
from tests.data.scans import write_cifti


def settings(root: Path, **changes) -> config.Data:
    values = {
        "layout": "hcp7t",
        "root": root,
        "store": root / "store.zarr",
        "subjects": ("100610",),
        "space": "fsLR",
        "captions": root / "captions.tsv",
    }
    return config.Data(**{**values, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Not to be changed; and the series of its films."""
    root = tmp_path_factory.mktemp("hcp") / "HCP"
    return root, write_hcp7t(root)


@pytest.fixture
def root(whole, tmp_path) -> Path:
    """Links to all files, to be replaced."""
    kept, _ = whole
    for path in kept.rglob("*.*"):
        if path.is_file():
            place = tmp_path / "HCP" / path.relative_to(kept)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    return tmp_path / "HCP"


def test_films_are_cut_into_a_grid_and_end_in_the_test(whole):
    root, series = whole
    study = load(settings(root))
    assert [(run.name, run.split) for run in study.runs[:4]] == [
        ("MOVIE1", "train"),
        ("MOVIE1_validation", "test"),
        ("MOVIE2", "train"),
        ("MOVIE2_validation", "test"),
    ]
    film, last = study.runs[2:4]
    clips = [trial.clip for trial in film.trials]
    # 20-247, 267-525 and 545-795 s: what is left at the end of each is shorter than 4 s.
    assert len(clips) == 56 + 64 + 62
    assert clips[55:57] == ["MOVIE2/240", "MOVIE2/267"]
    assert [film.trials[56].onset, film.trials[56].duration] == [267.0, 4.0]
    assert [trial.clip for trial in last.trials] == [f"validation/{4 * i:03d}" for i in range(20)]
    assert (last.trials[0].onset, last.start_time, last.trials[0].repeat) == (815.0, 815.0, 2)
    # No volume of the test is in the run that is trained on.
    np.testing.assert_array_equal(np.concatenate(list(film.blocks())), series["MOVIE2"][:815])
    np.testing.assert_array_equal(np.concatenate(list(last.blocks())), series["MOVIE2"][815:])
    part = study.videos["MOVIE2/267"]
    assert (part.path.name, part.start, part.duration) == ("7T_MOVIE2_HO1_v2.mp4", 267, 4)
    part = study.videos["validation/004"]
    assert (part.path.name, part.start, part.duration) == ("7T_MOVIE1_CC1_v2.mp4", 822, 4)
    repeats = {run.trials[3].repeat for run in study.runs if run.split == "test"}
    assert repeats == {1, 2, 3, 4}
    assert study.notes == ()


@pytest.mark.parametrize("seconds", [1, 3, 10, 83])
def test_no_clip_reaches_into_a_rest(seconds):
    """Whatever the length: the films begin and end with 20 s of rest, and rest 20 s between."""
    for film in hcp7t.FILMS:
        ends = [begin - 20 for begin, _ in film.clips] + [film.validation - 20]
        assert ends[0] == 0
        assert all(
            abs(rest - end) <= 1 for rest, (_, end) in zip(ends[1:], film.clips, strict=True)
        )
        assert film.validation + hcp7t.VALIDATION_SECONDS + 20 == film.volumes
        starts = list(hcp7t._starts(film, seconds))
        assert all(
            any(begin <= start and start + seconds <= end for begin, end in film.clips)
            for start in starts
        )
        assert len(starts) == sum((end - begin) // seconds for begin, end in film.clips)


def test_the_finer_mesh_has_files_of_its_own(root):
    for film in HCP_SCANS:
        path = hcp_scan(root, "100610", film)
        path.rename(hcp_scan(root, "100610", film, "Atlas_1.6mm"))
    assert len(load(settings(root, space="fsLR59k")).runs) == 8
    with pytest.raises(DataError, match=r"_Atlas_MSMAll_hp2000_clean\.dtseries\.nii: no such file"):
        load(settings(root))


def test_captions_may_still_have_to_be_written(whole):
    root, _ = whole
    study = read_wordless(settings(root, captions=None), Problems(skip=False))
    assert study.captions["validation/076"] == study.captions["MOVIE1/020"] == ""


def test_the_first_version_of_the_films_serves_too(root):
    for _, _, video in HCP_SCANS.values():
        path = root / "stimuli" / video
        path.rename(path.with_name(video.replace("_v2", "")))
    study = load(settings(root))
    assert study.videos["MOVIE4/020"].path.name == "7T_MOVIE4_HO2.mp4"


def test_a_missing_film_is_named_and_its_repeat_left_out(root):
    hcp_scan(root, "100610", "MOVIE3").unlink()
    problems = Problems(skip=False)
    study = read_study(settings(root), problems)
    assert problems.missing.lines == ["not there: MOVIE3 of subject 100610"]
    assert {run.name for run in study.runs if run.split == "test"} == {
        f"MOVIE{i}_validation" for i in (1, 2, 4)
    }


def test_films_whose_video_is_missing_are_left_out(root):
    (root / "stimuli" / "7T_MOVIE1_CC1_v2.mp4").unlink()
    problems = Problems(skip=False)
    study = read_study(settings(root), problems)
    assert problems.missing.lines == [f"not there: 7T_MOVIE1_CC1_v2.mp4 in {root / 'stimuli'}"]
    assert "MOVIE1" not in {run.name for run in study.runs}
    part = study.videos["validation/000"]  # shown in the other films as well
    assert (part.path.name, part.start) == ("7T_MOVIE2_HO1_v2.mp4", 815)


def test_another_length_or_repetition_time_is_rejected(root):
    path = hcp_scan(root, "100610", "MOVIE4")
    path.unlink()
    write_cifti(path, 900, step=1.0)
    rejects(r"tfMRI_MOVIE4_7T_AP\S+: 900 volumes, must be 901", settings(root))
    write_cifti(path, 901, step=0.72)
    rejects(r"its header says TR 0\.72 s, must be 1 s as in all films", settings(root))


def test_other_mistakes(root):
    rejects(
        r"100307/MNINonLinear/Results: no such folder; subject 100307 has no scans",
        settings(root, subjects=("100610", "100307")),
    )
    table = (root / "captions.tsv").read_text().splitlines()
    (root / "captions.tsv").unlink()
    (root / "captions.tsv").write_text(
        "\n".join(row for row in table if not row.startswith("validation/00")) + "\n"
    )
    rejects(r"captions\.tsv: has no caption for clip validation/000 and 2 more", settings(root))
    for change, message in (
        (
            {"space": "fsaverage"},
            r"^data\.space: must be fsLR \(32k\) or fsLR59k .* fsaverage$",
        ),
        ({"captions": None}, r"^data\.captions: layout hcp7t comes without captions"),
        ({"clip_seconds": 84}, r"^data\.clip_seconds: must be at most 83, .* is 84$"),
    ):
        with pytest.raises(DataError, match=message):
            load(settings(root, **change))
