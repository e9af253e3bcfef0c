"""Reading, resizing and writing clips."""

import numpy as np
import pytest

from glfa_jax.data import DataError, video
from glfa_jax.files import is_full


def moving_square(*, frames=6, size=32):
    clip = np.full((frames, size, size, 3), 40, np.uint8)
    for i in range(frames):
        clip[i, 8:20, 2 + 2 * i : 14 + 2 * i] = (220, 60, 60)
    return clip


def test_mp4_gives_the_frames_back(tmp_path):
    clip = moving_square()
    video.write_mp4(tmp_path / "a.mp4", clip, frame_rate=3)
    back = video.read_video(tmp_path / "a.mp4", frames=6, resolution=(32, 32))
    assert back.dtype == np.uint8
    error = np.abs(back.astype(int) - clip).mean(axis=(1, 2, 3))
    assert error.max() < 4  # chroma is stored at half the resolution
    others = [
        np.abs(back[i].astype(int) - clip[j]).mean() for i in range(6) for j in range(6) if i != j
    ]
    assert min(others) > error.max()
    np.testing.assert_array_equal(back, video.read_all(tmp_path / "a.mp4"))


def test_fewer_frames_come_from_the_middle_of_their_share(tmp_path):
    clip = moving_square(frames=12)
    video.write_mp4(tmp_path / "a.mp4", clip, frame_rate=6)
    every = video.read_all(tmp_path / "a.mp4")
    three = video.read_video(tmp_path / "a.mp4", frames=3, resolution=(32, 32))
    np.testing.assert_array_equal(three, every[[2, 6, 10]])


def parts_of(path, *spans, frames=3, size=(32, 32)):
    parts = [video.Part(path, start, duration) for start, duration in spans]
    return list(video.read_parts(path, parts, frames=frames, resolution=size))


def test_a_part_is_the_clip_it_would_be_alone(tmp_path):
    long = np.concatenate([moving_square(frames=10), moving_square(frames=10)[::-1]])
    video.write_mp4(tmp_path / "long.mp4", long, frame_rate=5)
    every = video.read_all(tmp_path / "long.mp4")
    # 2 s of 5 frames a second at a time; of ten frames, three shares take frames 1, 5 and 8.
    first, second = parts_of(tmp_path / "long.mp4", (0.0, 2.0), (2.0, 2.0))
    np.testing.assert_array_equal(first, every[[1, 5, 8]])
    np.testing.assert_array_equal(second, every[[11, 15, 18]])
    whole = video.read_video(tmp_path / "long.mp4", frames=7, resolution=(16, 24))
    for span in ((0.0, 4.0), (0.0, None)):
        [part] = parts_of(tmp_path / "long.mp4", span, frames=7, size=(16, 24))
        np.testing.assert_array_equal(part, whole)


def test_the_edge_between_two_frames_is_the_later_one_everywhere_in_a_film(tmp_path):
    """Six frames of 2 s at 30 a second: each middle is the very start of a frame."""
    clip = np.stack([np.full((16, 16, 3), 4 * i, np.uint8) for i in range(60)])
    video.write_mp4(tmp_path / "long.mp4", np.tile(clip, (5, 1, 1, 1)), frame_rate=30)
    every = video.read_all(tmp_path / "long.mp4")
    spans = [(2.0 * i, 2.0) for i in range(5)]
    parts = parts_of(tmp_path / "long.mp4", *spans, frames=6, size=(16, 16))
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part, every[60 * number + np.arange(5, 60, 10)])


def test_parts_may_overlap_leave_gaps_and_hold_one_another(tmp_path):
    long = np.concatenate([moving_square(frames=10)] * 3)
    video.write_mp4(tmp_path / "long.mp4", long, frame_rate=5)
    every = video.read_all(tmp_path / "long.mp4")
    spans = [(0.0, 1.5), (0.4, 0.6), (0.4, 4.0), (5.0, None)]
    for (start, duration), part in zip(spans, parts_of(tmp_path / "long.mp4", *spans), strict=True):
        moments = start + (np.arange(3) + 0.5) / 3 * (duration or 1.0)
        np.testing.assert_array_equal(part, every[np.floor(moments * 5 + 1e-9).astype(int)])
    with pytest.raises(ValueError, match="parts must be in the order of their starts"):
        parts_of(tmp_path / "long.mp4", (2.0, 1.0), (0.0, 1.0))


def test_a_part_beyond_the_end_of_the_file(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", moving_square(frames=10), frame_rate=5)
    # The last of three shares may lack less than its half: its middle still shows.
    assert len(parts_of(tmp_path / "a.mp4", (0.0, 1.2), (1.2, 0.9))) == 2
    path = tmp_path / "a.mp4"
    parts = [video.Part(path, 0.0, 1.0), video.Part(path, 1.0, 1.5)]
    reader = video.read_parts(path, parts, frames=3, resolution=(32, 32))
    assert len(next(reader)) == 3
    with pytest.raises(DataError, match=r"a\.mp4: ends at 2\.00 s, .* its frame at 2\.25 s"):
        next(reader)


def test_a_long_file_is_decoded_once_and_only_as_far_as_needed(tmp_path, monkeypatch):
    video.write_mp4(tmp_path / "a.mp4", moving_square(frames=50), frame_rate=5)
    films = []

    class Film(video.Film):
        def __init__(self, *given):
            super().__init__(*given)
            films.append(self)

    monkeypatch.setattr(video, "Film", Film)
    assert len(parts_of(tmp_path / "a.mp4", (0.0, 2.0), (2.0, 2.0))) == 2
    assert [film.decoded for film in films] == [20]


def test_same_bytes_every_time(tmp_path):
    """Noise in motion: what an encoder finds hard is where runs have differed."""
    rng = np.random.default_rng(3)
    coarse = np.kron(rng.integers(0, 256, (9, 9, 3)), np.ones((16, 16, 1)))
    clip = [
        np.roll(coarse, (4 * i, 2 * i), (0, 1)) + rng.normal(0, 6, coarse.shape) for i in range(36)
    ]
    clip = np.clip(clip, 0, 255).astype(np.uint8)
    written = set()
    for _ in range(6):
        video.write_mp4(tmp_path / "a.mp4", clip, frame_rate=24)
        written.add((tmp_path / "a.mp4").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("write", [video.write_mp4, video.write_gif])
def test_a_full_disk_is_an_error_of_the_system(write):
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write("/dev/full", moving_square(), frame_rate=3)
    assert is_full(caught.value)


def test_resize_keeps_height_and_width_apart_and_the_mean():
    clip = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3)).astype(np.uint8)
    assert video.resize(clip, resolution=(40, 60)) is clip
    small = video.resize(clip, resolution=(10, 20))
    assert small.shape == (2, 10, 20, 3)
    assert abs(small.mean() - clip.mean()) < 2
    ramp = np.broadcast_to(np.linspace(0, 240, 32)[:, None, None], (1, 32, 32, 3)).astype(np.uint8)
    down = video.resize(ramp, resolution=(16, 8))
    assert (np.ptp(down, axis=2) == 0).all()  # still constant along the width
    assert (np.diff(down[0, :, 0, 0].astype(int)) > 0).all()


def test_downsampling_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 200
    small = video.resize(stripes, resolution=(64, 16))
    assert np.abs(small.astype(int) - 100).max() < 15


def test_bad_files_are_named_in_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"none\.mp4: no such file"):
        video.read_video(tmp_path / "none.mp4", frames=2, resolution=(8, 8))
    (tmp_path / "noise.mp4").write_bytes(b"no film at all" * 50)
    with pytest.raises(DataError, match=r"noise\.mp4: truncated or no video"):
        video.read_video(tmp_path / "noise.mp4", frames=2, resolution=(8, 8))
    video.write_mp4(tmp_path / "cut.mp4", moving_square(frames=30), frame_rate=3)
    whole = (tmp_path / "cut.mp4").read_bytes()
    for part in (0.5, 0.8):
        (tmp_path / "cut.mp4").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match=r"cut\.mp4: truncated or no video"):
            video.read_video(tmp_path / "cut.mp4", frames=2, resolution=(8, 8))
        with pytest.raises(DataError, match=r"cut\.mp4: truncated or no video"):
            parts_of(tmp_path / "cut.mp4", (0.0, 10.0))


def test_odd_sizes_and_wrong_types_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="must be even, are 33 and 32"):
        video.write_mp4(tmp_path / "a.mp4", np.zeros((2, 33, 32, 3), np.uint8), frame_rate=3)
    with pytest.raises(ValueError, match="must be uint8"):
        video.write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3)), frame_rate=3)


def test_gif_holds_every_frame(tmp_path):
    from PIL import Image

    video.write_gif(tmp_path / "a.gif", moving_square(), frame_rate=3)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 6
        assert image.info["duration"] == 330
