"""Which clips are captioned, by which frames, and what a table that is there keeps."""

import json
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.captioning import table, work
from glfa_jax.data import DataError
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import Problems, Study
from glfa_jax.data.majority import majority
from glfa_jax.data.video import Part, read_parts, write_mp4
from glfa_jax.errors import InputError

RATE = 4  # frames a second
RECIPE = "tiny@1, 3 frames"


def film(path: Path, levels) -> Path:
    """Grey frames of these levels."""
    frames = np.broadcast_to(np.uint8(levels)[:, None, None, None], (len(levels), 16, 24, 3))
    write_mp4(path, frames, frame_rate=RATE)
    return path


def says(image) -> str:
    return f"a grey of {round(float(image.mean()) / 20)}"


class Teller:
    """Says how bright an image is; keeps how many it was shown at a time."""

    def __init__(self, *, until=None):
        self.shown, self.until = [], until

    def __call__(self, images):
        if self.until is not None and sum(self.shown) + len(images) > self.until:
            raise KeyboardInterrupt
        self.shown.append(len(images))
        return [says(image) for image in images]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two clips of a file each and a film of five clips of 2 s; scans play no part."""
    folder = tmp_path_factory.mktemp("study") / "stimuli"
    folder.mkdir()
    rng = np.random.default_rng(0)
    videos = {
        name: Part(film(folder / name, 20 * rng.integers(1, 5, 8))) for name in ("b.mp4", "a.mp4")
    }
    long = film(folder / "seg1.mp4", 20 * rng.integers(1, 5, 40))
    videos |= {f"seg1/{i:03d}": Part(long, 2.0 * i, 2.0) for i in range(5)}
    return Study(runs=(), videos=videos, captions=dict.fromkeys(videos, ""), files=())


def caption(study, target, teller=None, *, recipe=RECIPE, frames=3, batch=4, problems=None):
    return work.caption(
        study,
        target,
        teller or Teller(),
        recipe=recipe,
        frames=frames,
        batch=batch,
        problems=problems or Problems(skip=False),
        progress=False,
    )


def by_hand(study, frames):
    """Each clip alone."""
    found = {}
    for clip, part in study.videos.items():
        (shown,) = read_parts(part.path, [part], frames=frames, resolution=(16, 24))
        found[clip] = [says(frame) for frame in shown]
    return found


@pytest.mark.parametrize(("frames", "batch"), [(1, 3), (3, 1), (3, 4), (4, 50)])
def test_every_clip_gets_the_caption_of_most_of_its_frames(study, tmp_path, frames, batch):
    teller = Teller()
    written = caption(study, tmp_path / "c.tsv", teller, frames=frames, batch=batch)
    wanted = by_hand(study, frames)
    assert read_captions(tmp_path / "c.tsv") == {c: majority(w)[0] for c, w in wanted.items()}
    for clip, entry in written.entries.items():
        assert entry["votes"] == f"{wanted[clip].count(entry['caption'])}/{frames}"
        others = entry["others"].split(" | ") if entry["others"] else []
        assert set(others) == set(wanted[clip]) - {entry["caption"]}
        assert table.is_divided(entry) == (len(set(wanted[clip])) > 1)
        assert (entry["model"], entry["checked"]) == (RECIPE, "")
    assert list(written.entries) == list(study.videos)
    assert sum(teller.shown) == 7 * frames
    assert max(teller.shown) <= batch
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.tsv"]


def test_a_run_that_was_killed_goes_on_and_captions_nothing_twice(study, tmp_path):
    whole = tmp_path / "whole.tsv"
    caption(study, whole)
    target = tmp_path / "c.tsv"
    killed = Teller(until=12)
    with pytest.raises(KeyboardInterrupt):
        caption(study, target, killed)
    assert not target.exists()
    journal = tmp_path / ".c.tsv.scratch" / "captions.jsonl"
    finished = [line for line in journal.read_text().splitlines() if line]
    assert len(finished) == 4
    with journal.open("a") as file:  # the last line of a writer that was killed
        file.write('\n["0f')
    again = Teller()
    caption(study, target, again)
    assert sum(again.shown) == 3 * (7 - 4)
    assert target.read_bytes() == whole.read_bytes()
    assert not journal.parent.exists()
    once_more = Teller()
    assert caption(study, target, once_more).kept == 7
    assert once_more.shown == []
    assert target.read_bytes() == whole.read_bytes()


def test_a_journal_of_another_recipe_or_of_changed_clips_is_not_gone_on_from(study, tmp_path):
    target = tmp_path / "c.tsv"
    with pytest.raises(KeyboardInterrupt):
        caption(study, target, Teller(until=12), recipe="other")
    teller = Teller()
    caption(study, target, teller)
    assert sum(teller.shown) == 3 * 7


def test_what_a_person_wrote_or_checked_stays(study, tmp_path):
    target = tmp_path / "c.tsv"
    header = "stim_file\tnote\tcaption\tmodel\tchecked\n"
    target.write_text(
        header
        + 'a.mp4\tmine\ta "sea"\t\t\n'
        + "b.mp4\t\tcorrected\told@0\tyes\n"
        + "seg1/000\tx\tof another model\told@0\tn/a\n"
        + f"seg1/001\t\tof this one\t{RECIPE}\t\n"
        + "elsewhere.mp4\t\tof another study\told@0\t\n"
    )
    teller = Teller()
    written = caption(study, target, teller)
    assert (written.made, written.kept) == (4, 3)
    assert sum(teller.shown) == 3 * 4
    found = read_captions(target)
    assert found["a.mp4"] == 'a "sea"'
    assert found["b.mp4"] == "corrected"
    assert found["seg1/000"] == majority(by_hand(study, 3)["seg1/000"])[0]
    assert found["seg1/001"] == "of this one"
    assert found["elsewhere.mp4"] == "of another study"
    assert written.others == {"elsewhere.mp4": table.read(target)["elsewhere.mp4"]}
    assert table.read(target)["a.mp4"]["note"] == "mine"
    caption(study, target, recipe="new@2")
    assert read_captions(target)["b.mp4"] == "corrected"
    assert table.read(target)["seg1/001"]["model"] == "new@2"


def test_a_clip_that_cannot_be_read_stops_or_is_left_out(study, tmp_path):
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(study.videos["seg1/000"].path.read_bytes()[:900])
    long = study.videos["seg1/004"].path
    videos = {"torn.mp4": Part(torn), **study.videos, "seg1/005": Part(long, 10.0, 2.0)}
    videos["seg1/006"] = Part(long, 12.0, 2.0)
    odd = Study(runs=(), videos=videos, captions={}, files=())
    target = tmp_path / "c.tsv"
    with pytest.raises(DataError, match=r"torn\.mp4: truncated|seg1\.mp4: ends at"):
        caption(odd, target)
    assert not target.exists()
    problems = Problems(skip=True)
    written = caption(odd, target, problems=problems)
    assert set(written.entries) == set(study.videos)
    said = "\n".join(problems.noted)
    assert len(problems.noted) == 2
    assert "torn.mp4: " in said
    assert "seg1.mp4: ends at 10.00 s, but a clip needs" in said
    assert "s; clips that cannot be read: 2, from seg1/005 on" in said
    assert said.count("clips that cannot be read") == 1  # a file that is a clip is named already


def test_a_captioner_that_says_nothing_is_named(study, tmp_path):
    target = tmp_path / "c.tsv"
    with pytest.raises(
        DataError, match=r"clip [ab]\.mp4: the captioner says nothing about its frames"
    ):
        caption(study, target, lambda images: ["" for _ in images])
    assert not target.exists()


def test_a_table_that_cannot_be_read_is_left_alone(study, tmp_path):
    target = tmp_path / "c.tsv"
    target.write_text("stim_file\ttext\na.mp4\tb\n")
    with pytest.raises(DataError, match="has no column caption"):
        caption(study, target)
    assert target.read_text() == "stim_file\ttext\na.mp4\tb\n"
    films = "stim_file\tonset\tcaption\nseg1.mp4\t0\tb\nseg1.mp4\t4\tc\n"
    target.write_text(films)
    with pytest.raises(InputError, match=r"c\.tsv: describes films by their times .* with --out"):
        caption(study, target)
    assert target.read_text() == films
    with pytest.raises(InputError, match=r"GT_train_caption\.pt: --out and data\.captions must"):
        caption(study, tmp_path / "GT_train_caption.pt")


def test_the_table_lies_beside_the_clips(study, tmp_path):
    assert work.place_of(study) == study.videos["a.mp4"].path.with_name("captions.tsv")
    folder = tmp_path / "stimuli"
    parts = {"one/a.mp4": Part(folder / "one" / "a.mp4"), "two/b.mp4": Part(folder / "two/b.mp4")}
    nested = Study(runs=(), videos=parts, captions={}, files=())
    assert work.place_of(nested) == folder / "captions.tsv"
    path = folder / "movies" / "a.mp4"
    parts = {f"movies/a.mp4/{i:03d}": Part(path, 2.0 * i, 2.0) for i in range(2)}
    cut = Study(runs=(), videos=parts, captions={}, files=())
    assert work.place_of(cut) == folder / "captions.tsv"
    with pytest.raises(DataError, match="has no clip to caption"):
        work.place_of(Study(runs=(), videos={}, captions={}, files=()))


def test_frames_of_a_journal_are_counted(study, tmp_path):
    """The number of frames is part of the recipe of a table, and of a journal whatever it says."""
    scratch = tmp_path / ".c.tsv.scratch"
    with pytest.raises(KeyboardInterrupt):
        caption(study, tmp_path / "c.tsv", Teller(until=9))
    lines = [json.loads(x) for x in (scratch / "captions.jsonl").read_text().split("\n") if x]
    assert {len(captions) for _, captions in lines} == {3}
    teller = Teller()
    caption(study, tmp_path / "c.tsv", teller, frames=2)
    assert sum(teller.shown) == 2 * 7
