"""`glfa-jax decode` as a user types it, on an exported decoder that is all there is."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

import glfa_jax
from glfa_jax import config, decode
from glfa_jax.alignments.connectivity import parcels
from glfa_jax.alignments.warp import connectivity_of
from glfa_jax.alignments.warping import hemispheres
from glfa_jax.data.drawing import Drawing
from glfa_jax.data.signals import Pixels
from glfa_jax.data.video import read_all
from glfa_jax.decoding.aligning import aligned_to
from tests.data.conftest import write_gifti
from tests.evaluation.tiny_run import finished, write_store

SIDES = (512, 512)  # vertices; a pixel of the map each
CLIPS = 7


def drawing(pixels: int) -> Drawing:
    weights = csr_array(np.eye(pixels, dtype=np.float32))
    held = Pixels(np.arange(pixels), weights, SIDES)
    return Drawing("fsaverage5", "surface", held, config.Cleaning(polynomial=1))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An export whose run, store and surfaces are gone."""
    folder = tmp_path_factory.mktemp("model")
    settings = finished(folder)
    decoder = glfa_jax.load(settings.run_dir)
    mask = decoder.trained_on.mask
    kept = replace(decoder.trained_on, drawing=drawing(int(mask.sum())))
    replace(decoder, trained_on=kept).export(folder / "export")
    shutil.rmtree(settings.run_dir)
    shutil.rmtree(settings.data.store)
    return folder / "export"


@pytest.fixture(scope="module")
def decoder(model) -> glfa_jax.Decoder:
    return glfa_jax.load(model)


@pytest.fixture(autouse=True, scope="module")
def loaded_once(model, decoder):
    """Starts of the command share its compiled programs."""

    def load(path: Path) -> glfa_jax.Decoder:
        return decoder if path == model else glfa_jax.load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "load", load)
        yield


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("scans")
    series = np.random.default_rng(0).normal(1000, 10, (20, sum(SIDES)))
    files = [folder / f"{side}.gii" for side in ("left", "right")]
    for file, part in zip(files, np.split(series, 2, axis=1), strict=True):
        write_gifti(file, part)
    return list(map(str, files))


@pytest.fixture(scope="module")
def out(model, scans, loaded_once, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "decoded"
    assert run(model, scans, folder) == 0
    return folder


def run(model, scans, out, *more: str) -> int:
    given = [str(model), *scans, "--out", str(out), "--repetition-time", "1", *more]
    return decode.command(given)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "clips.tsv").open() as file:
        return list(csv.DictReader(file, dialect="excel-tab"))


def test_the_folder_holds_what_the_library_decodes(decoder, scans, out):
    found = decoder.maps_of(scans, repetition_time=1.0)
    assert len(found) == CLIPS
    wanted = decoder.decode(found.maps)
    held = [np.load(path) for path in sorted((out / "arrays").glob("*.npz"))]
    np.testing.assert_array_equal(np.concatenate([each["video"] for each in held]), wanted)
    table = rows(out)
    assert [row["clip"] for row in table] == list(found.clips)
    assert {row["alignment"] for row in table} == {"the layer that all subjects share"}
    assert all(-1 <= float(row["agreement"]) <= 1 for row in table)
    assert read_all(out / table[3]["file"]).shape == decoder.video_shape
    page = (out / "index.html").read_text()
    assert page.count("data:video/mp4") == CLIPS
    assert "no record of what a person thought or saw" in page
    assert "polynomial of order 1" in page


def test_a_second_start_decodes_what_is_missing_alone(model, scans, out, capsys, monkeypatch):
    first, second, _ = sorted((out / "arrays").glob("*.npz"))
    before, stamp = np.load(second)["video"], first.stat().st_mtime_ns
    second.unlink()
    assert run(model, scans, out) == 0
    np.testing.assert_array_equal(np.load(second)["video"], before)
    assert first.stat().st_mtime_ns == stamp
    monkeypatch.setattr(glfa_jax.Decoder, "decode", lambda *_, **__: pytest.fail("decoded again"))
    assert run(model, scans, out) == 0
    assert "every clip is decoded already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--samples", "3"], "was made with another samples; remove the folder to make it anew"),
        (["--set", "seed=5"], "was made with another seed; remove"),
        (["--set", "data.window=2"], "--set: data.window is as the decoder was trained"),
        (["--samples", "0"], "--samples: 0, must be 1 or more"),
        (["--method", "warp"], "--method: is that of --align; give both or neither"),
        (["--subject", "77"], "subject 77: is none of this decoder's, 01, 02, 03"),
        (["--films", "a.mp4,onset=x"], "onset must be a number of seconds"),
    ],
)
def test_what_does_not_fit_ends_with_a_sentence(model, scans, out, capsys, more, sentence):
    before = sorted(path.stat().st_mtime_ns for path in out.rglob("*.npz"))
    assert run(model, scans, out, *more) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert sorted(path.stat().st_mtime_ns for path in out.rglob("*.npz")) == before


def test_a_folder_in_use_is_not_touched(model, scans, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert run(model, scans, tmp_path) == 2
    assert "holds other files already; name a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert run(tmp_path, scans, tmp_path / "out") == 2
    assert "holds no config.yaml of a run and no decoder.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- aligned to the very maps ---


def test_aligning_needs_no_store_and_is_said(model, decoder, scans, tmp_path, monkeypatch):
    asked = []

    def drawn(self, maps, *, subject, clips, seed):
        asked.append((self.align(maps, subject=subject) - maps, subject))
        return np.zeros((len(maps), *self.video_shape), np.uint8)

    monkeypatch.setattr(glfa_jax.Decoder, "decode", drawn)  # the page matters, not the videos
    assert run(model, scans, tmp_path / "out", "--align", "unlabelled", "--samples", "1") == 0
    said = {row["alignment"] for row in rows(tmp_path / "out")}
    assert said == {"warp, fitted to fMRI alone, the very maps that are decoded"}
    assert {row["agreement"] for row in rows(tmp_path / "out")} == {"n/a"}
    page = (tmp_path / "out" / "index.html").read_text()
    assert "The alignment was fitted to these very maps" in page
    assert "how much of it is chance was not measured" in page
    assert {subject for _, subject in asked} == {"new"}
    assert all(np.abs(moved).max() > 0.1 for moved, _ in asked)


def test_what_travels_is_the_connectivity_of_the_aligned_training_maps(decoder, tmp_path):
    store = write_store(tmp_path / "trained.zarr", identity="trained", seed=0)  # made anew
    drawn = parcels(hemispheres(store.mask), count=70)
    found = [
        connectivity_of(decoder.align(store.fmri("train", [0, 1], subjects=[name])[:, 0]), drawn)
        for name in decoder.settings.protocol.train_subjects
    ]
    kept = decoder.trained_on.connectivity
    assert kept is not None
    np.testing.assert_allclose(kept, np.mean(found, axis=0), atol=1e-3)  # in 16 bits
    assert np.abs(kept).max() > 0.1


def test_a_decoder_without_connectivity_and_store_says_so(decoder, scans):
    found = decoder.maps_of(scans, repetition_time=1.0)
    bare = replace(decoder, trained_on=replace(decoder.trained_on, connectivity=None))
    with pytest.raises(glfa_jax.InputError, match="which this decoder does not keep, or"):
        aligned_to(bare, found)
    with pytest.raises(glfa_jax.InputError, match="ridge needs clips that training subjects saw"):
        aligned_to(decoder, found, method="ridge")
