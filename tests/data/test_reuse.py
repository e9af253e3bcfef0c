"""A finished store is used wherever it and its study lie; another one is rejected."""

import json
import shutil
from pathlib import Path

import pytest

from glfa_jax import lock
from glfa_jax.data import DataError
from glfa_jax.data.latents import LatentsWriter, writing_latents
from glfa_jax.preparation import prepare
from tests.data.conftest import settings, write_small_study


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A study with captions beside it, and its store; not to be changed."""
    place = tmp_path_factory.mktemp("old")
    root = write_small_study(place / "bids")
    shutil.copy(root / "stimuli" / "captions.tsv", place / "captions.tsv")
    prepare(settings_at(place), progress=False)
    return place


def settings_at(place: Path, **changes):
    values = {"captions": place / "captions.tsv", **changes}
    return settings(place / "bids", place / "a.zarr", **values)


@pytest.fixture
def moved(place, tmp_path) -> Path:
    return Path(shutil.copytree(place, tmp_path / "new disk #1"))


@pytest.fixture(autouse=True)
def nothing_is_written(monkeypatch):
    """As a store that lies write-protected; nobody is shut out from root's tests."""

    def reject(*_, **__):
        raise AssertionError("takes a lock")

    monkeypatch.setattr(lock, "_take", reject)


def test_a_store_is_used_where_it_and_its_study_were_moved(moved, capsys):
    before = sorted(moved.rglob("*"))
    assert prepare(settings_at(moved)).num_clips("train") == 6
    assert "up to date, reused" in capsys.readouterr().out
    assert sorted(moved.rglob("*")) == before


def test_a_store_alone_is_used_without_scans(moved, place):
    shutil.rmtree(moved / "bids")
    assert prepare(settings_at(moved), progress=False).num_clips("test") == 2
    (moved / "bids").mkdir()  # where a disk would be mounted
    assert prepare(settings_at(moved), progress=False).num_clips("test") == 2
    (moved / "captions.tsv").unlink()
    captions = {"captions": place / "captions.tsv"}  # as they were named
    assert prepare(settings_at(moved, **captions), progress=False).num_clips("test") == 2


def test_the_study_of_a_moved_store_is_not_another_one(moved):
    [scan, *_] = sorted((moved / "bids").glob("sub-01/func/*hemi-L*.func.gii"))
    content = scan.read_bytes()
    scan.write_bytes(content[:-1] + b"?")  # of the same size, as scans that are not packed
    message = rf"{scan.name} is not as in \S+/old\d*/bids, where it was prepared; remove it or"
    with pytest.raises(DataError, match=message):
        prepare(settings_at(moved), progress=False)
    scan.unlink()
    with pytest.raises(DataError, match=message):
        prepare(settings_at(moved), progress=False)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"window": 2}, "window"),
        ({"frames": 9}, "frames"),
        ({"captions": None}, "captions"),
        ({"captions": Path("elsewhere") / "captions.tsv"}, "captions"),
        ({"drop_volumes": (1, 0)}, "drop_volumes"),
    ],
)
def test_other_settings_are_rejected_wherever_it_lies(moved, changes, name):
    with pytest.raises(DataError, match=rf"a\.zarr: was prepared with other settings \({name}\)"):
        prepare(settings_at(moved, **changes), progress=False)


def kept_settings(moved: Path, act) -> None:
    """As another version of the package would have kept them."""
    path = moved / "a.zarr" / "zarr.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    provenance = content["attributes"]["provenance"]
    del provenance["seal"]
    act(provenance["settings"])
    path.write_text(json.dumps(content), encoding="utf-8")


def test_settings_that_did_not_exist_then_are_at_their_defaults(moved):
    kept_settings(moved, lambda then: [then.pop(key) for key in ("drop_volumes", "runs")])
    assert prepare(settings_at(moved), progress=False).num_clips("train") == 6
    with pytest.raises(DataError, match=r"other settings \(drop_volumes\)"):
        prepare(settings_at(moved, drop_volumes=(1, 0)), progress=False)


def test_settings_that_are_not_known_yet_are_named(moved):
    kept_settings(moved, lambda then: then.update(smoothing=3.0))
    with pytest.raises(DataError, match=r"other settings \(\S.*smoothing\)"):
        prepare(settings_at(moved), progress=False)


def test_finished_latents_take_no_lock(moved):
    options = {"clips": 6, "shard": 64, "sample": (2, 1, 1, 2), "vae": "one"}
    writer = LatentsWriter(moved / "a.zarr", "train", **options)
    for shard in writer.pending():
        writer.write(shard, 1.0)
    writer.finish()
    with writing_latents(moved / "a.zarr", "train", **options) as again:
        assert again.finished
