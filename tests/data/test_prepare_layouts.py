"""Studies in the layouts of the real sets, from files to the store, against a plain computation."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.sparse import csr_array

from glfa_jax import config
from glfa_jax.data import flatmap
from glfa_jax.data.layouts import wen2018
from glfa_jax.data.video import write_mp4
from glfa_jax.preparation import prepare
from tests.data.scans import MESH, write_cifti


def z_scored(maps, kept):
    spread = maps[:kept].std(axis=0, ddof=1)
    return (maps - maps[:kept].mean(axis=0)) / np.where(spread > 0, spread, 1)


# Wen 2018


def without_drift(series):
    """Less a polynomial of order 4, as the set's authors do."""
    powers = np.vander(np.linspace(-1, 1, len(series)), 5)
    series = np.nan_to_num(series)
    return series - powers @ np.linalg.lstsq(powers, series, rcond=None)[0]


def film(path: Path) -> None:
    """Eight minutes, brighter from clip to clip."""
    path.parent.mkdir(exist_ok=True)
    frames = np.repeat(np.arange(240, dtype=np.uint8), 2)[:, None, None, None]
    write_mp4(path, np.tile(frames, (1, 16, 16, 3)), frame_rate=1)


def drawn() -> flatmap.FlatMap:
    """Every second vertex that has data is a pixel."""
    vertices = [*range(13, 38, 2), *range(MESH[0] + 24, MESH[0] + 44, 2)]
    weights = np.zeros((256, sum(MESH)), np.float32)
    weights[np.arange(len(vertices)), vertices] = 1
    mask = (np.arange(256) < len(vertices)).reshape(16, 16)
    matrix = csr_array(weights)
    positions = np.full((sum(MESH), 2), np.nan)
    return flatmap.FlatMap(16, matrix, csr_array(matrix.T), mask, positions, 1.0, MESH)


@pytest.fixture
def wen(tmp_path, monkeypatch):
    films = [wen2018._Film("seg1", "train", 2), wen2018._Film("test2", "test", 10)]
    monkeypatch.setattr(wen2018, "FILMS", films)
    monkeypatch.setattr(flatmap, "of", lambda _: drawn())
    rows = [f"{one.name}/{clip:03d}\tclip {clip}" for one in films for clip in range(240)]
    (tmp_path / "captions.tsv").write_text("\n".join(["stim_file\tcaption", *rows]) + "\n")
    series = {}
    folder = tmp_path / "video_fmri_dataset" / "subject1" / "fmri"
    for one, volumes, repeats in ((films[0], 245, (1, 2)), (films[1], 246, (1, 2, 4))):
        film(tmp_path / "stimuli" / f"{one.name}.mp4")
        for repeat in repeats:
            name = f"{one.name}_{repeat}"
            path = folder / one.name / "cifti" / f"{name}_Atlas.dtseries.nii"
            series[name] = write_cifti(path, volumes, seed=repeat)[volumes - 244 :]
    data = config.Data(
        layout="wen2018",
        root=tmp_path,
        store=tmp_path / "store.zarr",
        subjects=("1",),
        space="fsLR",
        captions=tmp_path / "captions.tsv",
        map_size=16,
        window=3,
        frames=2,
        resolution=(16, 16),
    )
    return data, series


def test_wen2018(wen):
    data, series = wen
    store = prepare(data, progress=False)
    cortex = drawn()
    maps = {
        name: np.where(cortex.mask, z_scored(cortex.to_map(without_drift(values)), 240), 0)
        for name, values in series.items()
    }
    clips = store.attributes.clips
    assert clips["train"] == 2 * [f"seg1/{clip:03d}" for clip in range(240)]
    assert clips["test"] == [f"test2/{clip:03d}" for clip in range(240)]
    # The windows of the last clips lie in the volumes after the film.
    assert store.present("train", subjects=["1"]).all()
    assert store.present("test", subjects=["1"]).all()
    chosen = [0, 17, 239]
    for name, start in (("seg1_1", 0), ("seg1_2", 240)):
        fmri = store.fmri("train", [start + clip for clip in chosen], subjects=["1"])[:, 0]
        expected = np.stack([maps[name][clip + 2 : clip + 5] for clip in chosen])
        np.testing.assert_allclose(fmri, expected, atol=3e-3)
    fmri = store.fmri("test", chosen, subjects=["1"])[:, 0]
    average = np.mean([maps[f"test2_{repeat}"] for repeat in (1, 2, 4)], axis=0)
    expected = np.stack([average[clip + 2 : clip + 5] for clip in chosen])
    np.testing.assert_allclose(fmri, expected, atol=3e-3)
    brightness = store.video("test", range(240)).mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(brightness, np.arange(240), atol=3)
    attributes = store.attributes
    assert attributes.repeats == {"1": 3}
    assert [run["volumes"] for run in attributes.runs] == 5 * [240]
    assert attributes.notes == ["not there: test2 (repeats 3 and 5 to 10) of subject 1"]
    assert (attributes.repetition_time, attributes.clip_seconds) == (2.0, 2.0)
    assert attributes.provenance["settings"]["clean"]["polynomial"] == 4
    assert (
        "video_fmri_dataset/subject1/fmri/seg1/cifti/seg1_2_Atlas.dtseries.nii"
        in (attributes.provenance["files"])
    )


# Fudan

IMAGE = (30, 44)
TRIALS = 8


@pytest.fixture
def fudan(tmp_path):
    mask = np.zeros(IMAGE, np.int8)
    mask[3:27, 3:41] = -1
    mask[5:25, 8:33] = 1
    np.savez(tmp_path / "vc_roi.npz", images=mask[None])
    (tmp_path / "stimuli" / "condition").mkdir(parents=True)
    folder = tmp_path / "processed-fmri" / "sub-0001" / "hdf5"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    series = {}
    captions = ["stim_file\tcaption"]
    lists = {2: np.arange(100, 100 + TRIALS), 1: np.arange(200, 200 + TRIALS)}
    lists[4] = lists[1][::-1]
    for run, ids in lists.items():
        (tmp_path / "stimuli" / "condition" / f"run{run}.txt").write_text(
            "".join(f"{number}\n" for number in ids)
        )
        volumes = 3 + 13 * TRIALS + (-9 if run == 2 else 5)  # run 2 was broken off
        values = rng.normal(300, 5, (volumes, *IMAGE)).astype(np.float32)
        series[run] = np.where(mask != 0, values, 0)[3:]
        name = f"sub-0001_task-video_run-{run}_space-fsLR_den-91k_bold.dtseries.h5"
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("images", data=np.where(mask != 0, values, 0), chunks=(7, 30, 44))
        for number in ids:
            frames = np.full((24, 16, 16, 3), number % 100, np.uint8)
            frames[12:] += 100
            write_mp4(tmp_path / "stimuli" / f"{number}.mp4", frames, frame_rate=3)
            captions += [f"{number}.mp4\tclip {number}"] if run != 4 else []
    (tmp_path / "captions.tsv").write_text("\n".join(captions) + "\n")
    data = config.Data(
        layout="fudan",
        root=tmp_path,
        store=tmp_path / "store.zarr",
        subjects=("1",),
        space="fsLR",
        captions=tmp_path / "captions.tsv",
        runs={"1": config.RunNumbers(train=(2,), test=(1, 4))},
        map_size=16,
        frames=12,
        resolution=(16, 16),
    )
    return data, series, mask


def test_fudan(fudan, capsys):
    data, series, mask = fudan
    store = prepare(data)
    cortex = flatmap.from_image(mask, map_size=16)
    np.testing.assert_array_equal(store.mask, cortex.mask)
    maps = {
        run: np.where(
            cortex.mask,
            z_scored(
                cortex.to_map(values.reshape(len(values), -1).astype(np.float64)), len(values)
            ),
            0,
        )
        for run, values in series.items()
    }
    assert store.attributes.clips["train"] == [
        f"{number}_{half}s" for number in range(100, 100 + TRIALS) for half in (0, 4)
    ]
    # 95 volumes are there: the last trial, from volume 91 on, has neither of its windows.
    present = store.present("train", subjects=["1"])[:, 0]
    np.testing.assert_array_equal(present, [1] * 14 + [0, 0])
    assert not store.fmri("train", [14, 15], subjects=["1"]).any()
    assert "14 samples, 2 missing, 2 trials cut short" in capsys.readouterr().out
    fmri = store.fmri("train", range(14), subjects=["1"])[:, 0]
    for clip in range(14):
        first = 13 * (clip // 2) + 5 + 5 * (clip % 2)
        np.testing.assert_allclose(fmri[clip], maps[2][first : first + 5], atol=3e-3)
    test = store.fmri("test", range(16), subjects=["1"])[:, 0]
    for clip, name in enumerate(store.attributes.clips["test"]):
        place, half = int(name[:3]) - 200, int(name[4] == "4")
        firsts = [13 * p + 5 + 5 * half for p in (place, TRIALS - 1 - place)]
        both = [maps[run][first : first + 5] for run, first in zip((1, 4), firsts, strict=True)]
        np.testing.assert_allclose(test[clip], np.mean(both, axis=0), atol=3e-3)
    # The second half of each clip is 100 brighter.
    brightness = store.video("train", range(16)).mean(axis=(2, 3, 4))
    expected = np.repeat([[n, n + 100] for n in range(TRIALS)], 12, axis=1).reshape(16, 12)
    np.testing.assert_allclose(brightness, expected, atol=3)
    assert store.attributes.repeats == {"1": 2}
    assert store.attributes.clip_seconds == 4.0
    assert "vc_roi.npz" in store.attributes.provenance["files"]
