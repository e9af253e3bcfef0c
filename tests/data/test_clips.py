"""The videos of a study as pieces of the scratch."""

import os

import numpy as np

from glfa_jax.data.clips import Clips, bundle
from glfa_jax.data.video import Part
from tests.data import films


def test_a_clip_that_cannot_be_read_is_named_and_the_others_are_kept(tmp_path):
    good = films.encode(tmp_path / "a.mp4", 6)
    os.mkfifo(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").mkdir()
    (tmp_path / "d.mp4").write_bytes(good.read_bytes()[:-200])
    videos = {name: Part(tmp_path / f"{name}.mp4") for name in "abcde"}
    videos["late"] = Part(good, 0.1, 2.0)
    [task] = bundle(videos, frames=3, resolution=(8, 12))
    task.write(tmp_path / "piece")
    clips = Clips.read(tmp_path / "piece")
    assert {name: why.partition("mp4: ")[2][:20] for name, why in clips.failed.items()} == {
        "late": "ends at 0.24 s, but ",
        "b": "is no plain file",
        "c": "is no plain file",
        "d": "truncated or no vide",
        "e": "no such file",
    }
    assert clips.video("a").std() > 10
    assert not np.any([clips.video(name) for name in clips.failed])
    assert sorted(clips.files) == [str(good), str(tmp_path / "d.mp4")]
