"""Scans of one run, named by a user: the maps that a store has of them, and every sentence."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data.drawing import Drawing
from glfa_jax.data.shown import showing_of
from glfa_jax.data.video import Part
from glfa_jax.errors import InputError
from glfa_jax.trained.data import TrainedOn
from glfa_jax.trained.scans import maps_of
from tests.data.conftest import series_of, settings, stem, write_gifti

PLAIN = config.Cleaning()
CLEANED = config.Cleaning(polynomial=1, confounds=config.Confounds(columns=("rot_?",)))


@pytest.fixture(scope="module")
def drawing(store) -> Drawing:
    found, mask = Drawing.of(settings(Path("none"), store.path), cleaning=PLAIN)
    np.testing.assert_array_equal(mask, store.mask)
    return found


@pytest.fixture(scope="module")
def trained(store, drawing) -> Any:
    """All of a decoder that this takes."""
    return of_store(store, drawing)


def of_store(store, drawing, **changes) -> Any:
    average = store.average(subjects=["01"])
    return SimpleNamespace(
        settings=SimpleNamespace(data=settings(Path("none"), Path("none.zarr"), **changes)),
        trained_on=TrainedOn.of(store, average=average, drawing=drawing),
    )


def scans(root: Path, run: str, *, subject: str = "01", sides: str = "LR") -> list[Path]:
    name = stem(root, subject, run)
    return [Path(f"{name}_hemi-{side}_space-fsaverage5_bold.func.gii") for side in sides]


@pytest.fixture
def alone(tmp_path, study):
    """A copy of one run's files with names of the user's own, and no sidecar."""
    for scan, name in zip(scans(study, "01"), ("left.gii", "right.gii"), strict=True):
        shutil.copy(scan, tmp_path / name)
    return [tmp_path / "left.gii", tmp_path / "right.gii"]


def test_maps_are_those_of_the_store_bit_for_bit(trained, store, study):
    events = Path(f"{stem(study, '01', '02')}_events.tsv")
    found = maps_of(trained, scans(study, "02")[::-1], events=events)  # the names tell the sides
    assert found.clips == ("d.mp4", "a.mp4", "e.mp4")
    np.testing.assert_array_equal(found.onsets, [0, 6, 12.9])
    stored = store.fmri("train", [3, 4, 5], subjects=["01"])[:, 0]
    np.testing.assert_array_equal(found.maps, stored)
    assert found.maps.dtype == stored.dtype
    np.testing.assert_array_equal(found.some([2, 0]), stored[[2, 0]])
    assert found.shown[0] == Part(study / "stimuli" / "d.mp4")
    assert (found.left_out, found.notes) == ((), ())


def test_without_a_table_the_whole_run_is_cut_into_clips(trained, store, study):
    found = maps_of(trained, scans(study, "01"))
    assert found.clips[:3] == ("0 s", "2 s", "4 s")
    assert len(found) == 12  # the lag of 4 s and a window of 3 volumes are left at the end
    np.testing.assert_array_equal(found.maps[3], store.fmri("train", [1], subjects=["01"])[0, 0])
    # All windows of the run, of which 16 volumes hold five.
    every = found.every
    assert every.shape == (5, 3, 32, 32)
    np.testing.assert_array_equal(every[1, 2], found.maps[3, 0])


def test_long_events_and_films_are_cut_into_clips(trained, study, tmp_path):
    table = tmp_path / "events.tsv"
    table.write_text("onset\tduration\n0\tn/a\n4\t6.5\n22\t2\n25\t2\n")
    found = maps_of(trained, scans(study, "01"), events=table)
    assert found.clips == ("event 001", "event 002/000", "event 002/001", "event 002/002",
                           "event 003")  # fmt: skip
    assert found.left_out == ("event 004",)
    np.testing.assert_array_equal(found.onsets, [0, 4, 6, 8, 22])
    table.write_text("onset\tstim_file\n0\tcaptions.tsv\n4\tn/a\n6\tgone.mp4\n")
    found = maps_of(trained, scans(study, "01"), events=table)
    assert (found.clips, found.shown) == (("captions.tsv", "gone.mp4"), (None, None))
    assert [note.split(": ")[1][:21] for note in found.notes] == ["truncated or no video"]
    films = [showing_of("a.mp4"), showing_of("other.mp4,onset=5,start=3,duration=5")]
    found = maps_of(trained, scans(study, "01"), films=films)
    assert found.clips == ("a.mp4/000", "other.mp4/002", "other.mp4/003")
    np.testing.assert_array_equal(found.onsets, [0, 6, 8])
    assert found.shown == (Part(study / "stimuli" / "a.mp4", 0.0, 2.0), None, None)
    assert found.notes == ("other.mp4: is not there, so what was shown is not shown beside",)


def test_files_of_any_name_need_a_stated_repetition_time(trained, alone, store, study):
    rejects(trained, alone, "neither its header nor a sidecar says the repetition time; state it")
    found = maps_of(trained, alone, repetition_time=2.0)
    every = maps_of(trained, scans(study, "01"))
    np.testing.assert_array_equal(found.maps, every.maps)
    rejects(trained, alone, "TR 1.5 s, but this decoder was trained at a TR of 2 s", tr=1.5)


def test_a_stated_repetition_time_holds_whatever_the_files_say(trained, study, tmp_path):
    """The decoder's own scans may have had wrong headers, too, where its layout knows better."""
    files = [Path(shutil.copy(scan, tmp_path)) for scan in scans(study, "01")]
    sidecar = files[0].with_name(files[0].name.replace(".func.gii", ".json"))
    sidecar.write_text(json.dumps({"RepetitionTime": 1.3}))
    rejects(
        trained,
        files,
        r"TR 1.3 s, but .* TR of 2 s; resample the scans in time first, or state their TR if that "
        r"is wrong \(--repetition-time\)",
    )
    image: Any = nibabel.load(files[1])
    image.meta["TimeStep"] = "1700"
    nibabel.save(image, files[1])
    found = maps_of(trained, files, repetition_time=2.0)
    assert found.notes == (
        f"{files[1]}: its header says TR 1.7 s and --repetition-time 2 s; taken to be 2 s",
    )
    np.testing.assert_array_equal(found.maps, maps_of(trained, scans(study, "01")).maps)


def test_confounds_are_found_beside_or_named_or_missed(store, drawing, study, tmp_path):
    cleaning = Drawing(drawing.space, drawing.kind, drawing.pixels, CLEANED)
    trained = of_store(store, cleaning)
    rejects(
        trained,
        scans(study, "01"),
        r"has no table of confounds beside it .*, which this decoder's cleaning needs "
        r"\(polynomial of order 1, confounds rot_\?\); name it \(--confounds\)",
    )
    table = tmp_path / "c.tsv"
    rows = ["rot_x\tother", *(f"{np.sin(i):.4f}\t0" for i in range(16))]
    table.write_text("\n".join(rows) + "\n")
    found = maps_of(trained, scans(study, "01"), confounds=table)
    moved = np.sin(np.arange(16)) - np.sin(np.arange(16)).mean()
    assert np.abs(np.tensordot(moved, found.scores, 1)).max() < 1e-2  # nothing of it is left
    table.write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(InputError, match=r"c\.tsv: has 15 rows, must have one for each of the 16"):
        maps_of(trained, scans(study, "01"), confounds=table)


def test_dropped_volumes_are_dropped_here_too(store, drawing, study):
    trained = of_store(store, drawing, drop_volumes=(2, 1))
    found = maps_of(trained, scans(study, "01"))
    assert len(found.scores) == 13
    assert found.clips[0] == "0 s"  # its window begins with the first volume that is kept
    assert found.firsts[0] == 0


def rejects(trained, files, sentence, *, tr=None, **options):
    with pytest.raises(InputError, match=sentence) as caught:
        maps_of(trained, files, repetition_time=tr, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("absent.func.gii", "absent.func.gii: no such file"),
        ("a.mp4", "must be a functional GIFTI .* a dense CIFTI series .* or a NIfTI"),
        ("a.nii.gz", "a series of volume values, but .* trained on surface scans in fsaverage5"),
        (
            "sub-1_space-fsaverage6_hemi-L_bold.func.gii",
            "is in space fsaverage6, but this decoder was",
        ),
    ],
)
def test_other_files_are_a_sentence(trained, tmp_path, name, sentence):
    files = [tmp_path / name] * (2 if name.endswith(".gii") else 1)
    if "hemi" in name:
        files = [tmp_path / name, tmp_path / name.replace("hemi-L", "hemi-R")]
    rejects(trained, files, sentence)


def test_scans_that_do_not_go_together_are_a_sentence(trained, study, alone, tmp_path):
    both = scans(study, "01")
    rejects(trained, both[:1], "_bold.func.gii: is the left hemisphere alone; name both")
    rejects(trained, alone[:1], "left.gii: is the one hemisphere alone; name both")
    rejects(trained, [both[0], both[0]], "must be the other hemisphere of sub-01")
    rejects(trained, [*both, both[0]], "must be the left and the right hemisphere of one run")
    rejects(trained, [], "files: must name the scans of a run")
    series = series_of("01", "01")
    write_gifti(alone[1], series[:, 10_242:-1])
    rejects(trained, alone, r"10242 \+ 10241 values a volume, the flat map takes", tr=2.0)
    write_gifti(alone[0], series[:2, :10_242])
    write_gifti(alone[1], series[:2, 10_242:])
    rejects(trained, alone, "left.gii: 2 volumes, a window needs 3", tr=2.0)
    meta = {"AnatomicalStructurePrimary": "CortexRight"}
    array = nibabel.gifti.GiftiDataArray(series[0, :10_242], meta=meta)
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array]), alone[0])
    rejects(trained, alone, "left.gii: holds CortexRight, must hold the left hemisphere", tr=2.0)
    files = [Path(shutil.copy(scan, tmp_path)) for scan in both]
    sidecar = tmp_path / files[0].name.replace(".func.gii", ".json")
    sidecar.write_text(json.dumps({"RepetitionTime": 1.0}))
    rejects(trained, files, "TR 1 s, but this decoder was trained at a TR of 2 s; resample")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("begin\tduration\n0\t2\n", "has no column onset, its first line names begin, duration"),
        ("onset\nsoon\n", "line 2: onset must be a number of seconds"),
        ("onset\tduration\n0\t-2\n", "line 2: duration must be a number of seconds from 0"),
        ("onset\tduration\n40\t2\n", r"a trial starts at 40 s, beyond the end of the run at 32 s"),
        ("onset\n", "lists no events"),
        ("onset\tduration\n28\t2\n", "the window of none of the 1 clips is wholly in the run"),
        ("onset\tduration\tstim_file\n0\t8\ta.mp4\n", "lasts 2 s, but .* line 2 says that it is"),
    ],
)
def test_events_that_do_not_fit_are_a_sentence(trained, study, tmp_path, text, sentence):
    table = tmp_path / "events.tsv"
    table.write_text(text)
    rejects(trained, scans(study, "01"), sentence, events=table)


@pytest.mark.parametrize(
    ("films", "sentence"),
    [
        (["a.mp4,duration=9"], "lasts 2 s, but films says that it is shown up to 9 s"),
        (["a.mp4,start=3"], "lasts 2 s, but films says that it is shown from 3 s on"),
        (["b.avi,onset=50,duration=4"], "film b.avi starts at 50 s, beyond the end of the run"),
        (["b.avi,duration=1"], "b.avi is shown for 1 s, less than a clip of 2 s"),
        (["b.avi", "c.avi,onset=8"], "b.avi is shown until 32 s, but c.avi from 8 s on"),
        (["b.avi,onset=x"], "onset must be a number of seconds, is 'x'"),
        (["b.avi,begin=4"], "must be FILE,onset=S,start=S,duration=S"),
    ],
)
def test_films_that_do_not_fit_are_a_sentence(trained, study, films, sentence):
    with pytest.raises(InputError, match=sentence):
        maps_of(trained, scans(study, "01"), films=[showing_of(film) for film in films])


def test_a_decoder_without_a_drawing_says_what_to_do(store, study):
    trained = of_store(store, None, space="fsaverage6")
    rejects(
        trained,
        scans(study, "01"),
        r"does not keep how scans become its maps, .* \(data\.surfaces\.flat: space fsaverage6 .*"
        r"export the run again \(python -m glfa_jax\.export\) where the surfaces",
    )
    # fsaverage5 is built in, so that nothing need be kept.
    assert len(maps_of(of_store(store, None), scans(study, "01"))) == 12
