"""The page: whole, alone, in words and pictures that fit the store."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from glfa_jax.data.look import command as main
from glfa_jax.report.inspection.cleaning import slow_power
from glfa_jax.report.inspection.inspection import inspect
from glfa_jax.report.inspection.page import render, write
from tests.report.inspection.conftest import (
    FRAMES,
    MASK,
    SUBJECTS,
    VOLUMES,
    WINDOW,
    contents,
    with_kinds,
    write_store,
)
from tests.report.test_page import parse, words


@pytest.fixture(scope="module")
def text(healthy) -> str:
    return render(healthy, inspect(healthy, progress=False), clips=2)


def pictures(text: str) -> dict[str, Image.Image]:
    """Every embedded picture by its words."""
    found = {}
    for tag in re.findall(r"<img [^>]*>", text):
        source = re.search(r'src="data:image/\w+;base64,([^"]*)"', tag)
        name = re.search(r'alt="([^"]*)"', tag)
        assert source is not None
        assert name is not None
        found[name[1]] = Image.open(io.BytesIO(base64.b64decode(source[1])))
    return found


def test_page_needs_nothing_beside_itself_and_is_well_formed(text):
    assert not re.search(r"https?://", text)
    assert "<script" not in text
    for tag, key, value in parse(text).attributes:
        if key in ("src", "href"):
            assert value.startswith(("data:", "#")), (tag, key, value[:60])
    ids = [value for _, key, value in parse(text).attributes if key == "id"]
    assert len(ids) == len(set(ids))


def test_head_says_what_is_in_the_store(text):
    plain = words(text)
    assert (
        "3 subjects (01, 02 and 03), 7 train and 73 test samples, on a flat map of 305 cortex "
        "pixels."
    ) in plain
    for fact in ("bids, fsaverage5", "4 s (4 volumes)", "3 volumes, 3 s", "some/study", "1.2.3"):
        assert fact in plain
    assert "Prepared from 1 file, 2.5 MB" in plain
    assert "Simple checks found nothing out of the ordinary." in plain


def test_a_store_without_test_samples_is_shown(make):
    def change(made):
        for about in ("clips", "captions"):
            made.attributes[about] = {**made.attributes[about], "test": []}
        for name in made.arrays:
            if name.startswith("test/"):
                made.arrays[name] = made.arrays[name][:0]

    store = make(change)
    assert store.sample == (FRAMES, 8, 12, 3)
    plain = words(render(store, inspect(store, progress=False), clips=2))
    assert "7 train and 0 test samples" in plain
    assert "the store holds no test sample" in plain


def test_a_store_of_before_says_that_it_was_not_cleaned(text):
    plain = words(text)
    assert "none: drift and motion that the scans came with are in them" in plain
    assert "The store was prepared before drift and motion were measured." in plain


def test_drift_and_motion_are_shown_before_and_after(make):
    def change(made):
        with_kinds(made, ("carpet", "course_cleaned", "displacement", "tsnr_cleaned"))
        made.attributes["provenance"]["settings"]["clean"] = {"polynomial": 4}
        for run in made.attributes["runs"]:
            run |= {"drift": 0.4, "drift_cleaned": 0.01, "tsnr": 40.0, "tsnr_cleaned": 52.0}
            run |= {"displacement": 0.125, "motion": 0.375, "motion_cleaned": 0.0625}

    store = make(change)
    page = render(store, inspect(store, progress=False), clips=0)
    plain = words(page)
    assert "polynomial of order 4" in plain
    # Cells follow each other; the slowest wave of runs of 40 s has 0.025 Hz.
    assert "01as scanned0.000.40400.120.38–" in plain
    assert "01after cleaning0.000.0152–0.060" in plain
    assert "Framewise displacement of subject 03" in plain
    shown = pictures(page)
    before = shown["Carpet of subject 01, run 1, as scanned"]
    after = shown["Carpet of subject 01, run 1, after cleaning"]
    assert before.size == after.size == (VOLUMES, 96)
    values = np.asarray(before.convert("L"), float)
    assert (np.diff(values[0]) >= 0).all()
    assert np.ptp(values[0]) == 255
    assert not (np.diff(np.asarray(after.convert("L"), float)[0]) >= 0).all()
    parse(page)


def test_slow_power_is_what_lies_below_a_hundredth_of_a_hertz():
    time = np.arange(200) * 2.0
    slow, fast = np.sin(2 * np.pi * time / 200), 2 * np.sin(2 * np.pi * time / 20)
    assert slow_power(5 + slow + fast, seconds=2.0) == pytest.approx(0.2)
    assert np.isnan(slow_power(np.ones(200), seconds=2.0))


def test_every_subject_has_every_map(text):
    shown = pictures(text)
    for subject in SUBJECTS:
        for kind in (
            *("Mean signal", "Temporal signal-to-noise ratio"),
            *("Repeat reliability", "Mask and coverage"),
        ):
            picture = shown[f"{kind}, subject {subject}"]
            assert picture.size == (20, 17)  # cropped to the cortex
            alpha = np.asarray(picture.convert("RGBA"))[..., 3] > 0
            np.testing.assert_array_equal(alpha, MASK[3:20, 2:22])
        assert f"Mean signal of the cortex over all runs, subject {subject}" in text
    for pair in ("01 and 02", "01 and 03", "02 and 03"):
        name = next(
            key for key in shown if key.startswith("Inter-subject correlation, subjects " + pair)
        )
        assert re.search(r"mean 0\.4\d\d|mean 0\.5\d\d", name)


def test_maps_are_brighter_where_values_are_higher(make):
    def change(made):
        made.arrays["quality/tsnr/sub-01"] = np.where(np.arange(24) < 12, 40.0, 80.0) * MASK

    store = make(change)
    shown = pictures(render(store, inspect(store, progress=False), clips=0))
    luminance = np.asarray(
        shown["Temporal signal-to-noise ratio, subject 01"].convert("RGBA").convert("L")
    )
    assert luminance[:, 11:].max() > luminance[8, 3] + 30
    assert luminance[8, 15] > luminance[8, 3] + 30


def test_film_and_maps_hold_their_frames_in_order_and_play_in_one_rhythm(text):
    shown = pictures(text)
    film = np.asarray(shown["Test clip test0.mp4: &lt;b&gt;test&lt;/b&gt; &amp; clip 0"])
    assert film.shape == (8, FRAMES * 12, 3)
    levels = film.reshape(8, FRAMES, 12, 3).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(levels, 40 * np.arange(FRAMES), atol=3)
    strip = shown["Flat maps of subject 02 during clip test0.mp4"]
    assert strip.size == (WINDOW * 20, 17)
    # Four frames over 2 s and three volumes over 3 s, both again after 3 s.
    rules = dict(re.findall(r"@keyframes (\w+) \{ (.*) \}\n", text))
    assert [float(x) for x in re.findall(r"([\d.]+)% \{", rules["film"])] == pytest.approx(
        [0, 100 / 6, 100 / 3, 50, 200 / 3], abs=1e-3
    )
    assert [float(x) for x in re.findall(r"([\d.]+)% \{", rules["window"])] == pytest.approx(
        [0, 100 / 3, 200 / 3], abs=1e-3
    )
    assert re.findall(r"animation: (\w+) (\S+)s step-end infinite", text) == [
        ("film", "3"),
        ("window", "3"),
    ]
    assert "recorded about 4 s after it. The window is longer than the clip" in words(text)


def test_window_of_the_clips_own_length_leaves_no_pause(make):
    store = make(lambda made: made.attributes.update(clip_seconds=3.0))
    text = render(store, inspect(store, progress=False), clips=1)
    assert "Both start again every 3 s." in words(text)
    assert "opacity: .12" not in text


def test_captions_and_notes_are_escaped(make):
    store = make(lambda made: made.attributes.update(notes=["<i>run 7</i> left out & noted"]))
    text = render(store, inspect(store, progress=False), clips=2)
    assert "<b>test</b> & clip 0" in words(text)
    assert "Preparation noted:<i>run 7</i> left out & noted" in words(text)


def test_findings_stand_at_the_top(make):
    def change(made):
        made.arrays["train/fmri/sub-02"][3, 1, 8, 8] = 14

    store = make(change)
    text = render(store, inspect(store, progress=False), clips=1)
    glance = text[text.index('id="findings"') : text.index('id="maps"')]
    assert "Subject 02: the largest |z| is 14.0" in words(
        glance.partition(">")[2].rpartition("</section>")[0]
    )


def test_a_missing_sample_and_a_lack_of_repeats_are_reported(make):
    def change(made):
        made.arrays["test/present/sub-02"][:] = False
        made.arrays["test/fmri/sub-02"][:] = 0
        made.attributes["repeats"]["01"] = 1

    store = make(change)
    text = render(store, inspect(store, progress=False), clips=1)
    assert "no sample" in words(text)
    assert "Without repeats: subject 01." in words(text)
    reliability = pictures(text)["Repeat reliability, subject 01"].convert("RGBA")
    assert not np.asarray(reliability)[..., 3].any()


def test_one_subject_has_nobody_to_correlate_with(tmp_path):
    made = contents()
    made.attributes.update(subjects=("01",), runs=made.attributes["runs"][:2], repeats={"01": 2})
    made.arrays = {k: v for k, v in made.arrays.items() if not k.endswith(("02", "03"))}
    store = write_store(tmp_path / "one.zarr", made)
    text = render(store, inspect(store, progress=False), clips=1)
    assert "nobody to correlate with" in words(text)


def test_many_subjects_get_one_map_each_and_all_pairs_a_number(tmp_path):
    made = contents()
    subjects = tuple(f"{i:02}" for i in range(1, 7))  # 15 pairs
    for i, subject in enumerate(subjects[3:]):
        for name in [name for name in made.arrays if name.endswith(SUBJECTS[i])]:
            made.arrays[name[:-2] + subject] = made.arrays[name]
        made.attributes["runs"] += [
            {**run, "subject": subject} for run in made.attributes["runs"] if run["subject"] == "01"
        ]
    made.attributes.update(subjects=subjects, repeats=dict.fromkeys(subjects, 2))
    store = write_store(tmp_path / "many.zarr", made)
    inspection = inspect(store, progress=False)
    text = render(store, inspection, clips=1)
    maps = [n for n in pictures(text) if n.startswith("Inter-subject")]
    assert maps == [f"Inter-subject correlation, subject {s} with the others" for s in subjects]
    pair = next(pair for pair in inspection.pairs if pair.subjects == ("01", "04"))
    assert pair.mean == pytest.approx(1)
    assert text.count("<td>1.000</td>") == 6


def test_the_same_store_gives_the_same_page(healthy, text):
    assert render(healthy, inspect(healthy, progress=False), clips=2) == text


def test_command_writes_beside_the_store_or_where_it_is_asked_to(healthy, tmp_path, capsys):
    assert main([str(healthy.path), "--clips", "1"]) == 0
    page = healthy.path.with_name("healthy.html")
    assert str(page) in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([str(healthy.path), "--out", str(tmp_path / "a.html"), "--clips", "1"]) == 0
    assert (tmp_path / "a.html").read_bytes() == page.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html"]


def test_bad_input_is_one_sentence(healthy, tmp_path, capsys):
    def error(*arguments: str) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        return message

    assert "no prepared store" in error(tmp_path / "nowhere")
    (tmp_path / "zarr.json").write_text("{}")
    assert "not a prepared store" in error(tmp_path)
    assert "--clips" in error(healthy.path, "--clips", "-1")
    assert "is a folder" in error(healthy.path, "--out", tmp_path)
    assert "cannot be written" in error(healthy.path, "--out", tmp_path / "none" / "a.html")
    with pytest.raises(SystemExit) as stopped:
        main([str(healthy.path), "--colour", "red"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: --colour red" in capsys.readouterr().err


def test_nothing_is_left_of_a_page_that_failed(healthy, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "a.html").write_text("old")
    monkeypatch.setattr("glfa_jax.report.inspection.page.inspect", fail)
    with pytest.raises(KeyboardInterrupt):
        write(healthy, tmp_path / "a.html", clips=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text() == "old"


def test_page_of_a_prepared_study(store):
    inspection = inspect(store, progress=False)
    text = render(store, inspection, clips=2)
    plain = words(text)
    samples = {split: store.num_clips(split) for split in ("train", "test")}
    assert (
        f"2 subjects (01 and 02), {samples['train']} train and {samples['test']} test samples"
    ) in plain
    rows = re.findall(r'<tr><th scope="row".*?</tr>', text[: text.index('id="maps"')])
    for subject, row in zip(("01", "02"), rows, strict=True):
        values = [
            np.abs(store.fmri(split, range(count), subjects=[subject]).astype(float)).max()
            for split, count in samples.items()
        ]
        present = [int(store.present(s, subjects=[subject]).sum()) for s in samples]
        tsnr = np.median(store.quality("tsnr", subject)[store.mask])
        reliability = store.quality("reliability", subject)[store.mask].mean()
        assert re.findall(r"<t[hd][^>]*>([^<]*)", row) == [
            *(subject, "4", "64", *map(str, present), f"{1 - sum(present) / 8:.1%}", "2"),
            *(f"{tsnr:.0f}", f"{reliability:.2f}".replace("-", "−"), f"{max(values):.1f}"),
        ]


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("wen2018", ["Left hemisphere on the left"]),
        ("fudan", ["the image that the data set itself uses"]),
        ("not known here", []),
    ],
)
def test_the_page_says_what_the_flat_map_shows(make, layout, says):
    store = make(lambda made: made.attributes.update(layout=layout))
    page = render(store, inspect(store, progress=False), clips=0)
    either = ("Left hemisphere on the left", "the image that the data set itself uses")
    assert [words for words in either if words in page] == says
