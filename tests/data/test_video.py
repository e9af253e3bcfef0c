"""Reading, resizing and writing clips."""

import numpy as np
import pytest

from glfa_jax.data import DataError, video


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


def test_same_bytes_every_time(tmp_path):
    for name in "ab":
        video.write_mp4(tmp_path / name, moving_square(), frame_rate=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


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
    with pytest.raises(DataError, match=r"none\.mp4: no such video file"):
        video.read_video(tmp_path / "none.mp4", frames=2, resolution=(8, 8))
    (tmp_path / "noise.mp4").write_bytes(b"no film at all" * 50)
    with pytest.raises(DataError, match=r"noise\.mp4: does not decode as video"):
        video.read_video(tmp_path / "noise.mp4", frames=2, resolution=(8, 8))
    video.write_mp4(tmp_path / "cut.mp4", moving_square(frames=30), frame_rate=3)
    whole = (tmp_path / "cut.mp4").read_bytes()
    for part in (0.5, 0.8):
        (tmp_path / "cut.mp4").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match=r"cut\.mp4: does not decode as video"):
            video.read_video(tmp_path / "cut.mp4", frames=2, resolution=(8, 8))


def test_odd_sizes_and_wrong_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be even, are 33 and 32"):
        video.write_mp4(tmp_path / "a.mp4", np.zeros((2, 33, 32, 3), np.uint8), frame_rate=3)
    with pytest.raises(ValueError, match="must be uint8"):
        video.write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3)), frame_rate=3)


def test_gif_holds_every_frame(tmp_path):
    from PIL import Image

    video.write_gif(tmp_path / "a.gif", moving_square(), frame_rate=3)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 6
        assert picture.info["duration"] == 330
