"""Files whose copying broke off."""

import numpy as np
import pytest

from glfa_jax.data import DataError, video
from tests.data import films

KINDS = {
    "end.mp4": {},
    "front.mp4": {"container": {"movflags": "+faststart"}},  # its table comes before its frames
    "pieces.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mov": {"codec": "mpeg4"},
    "a.avi": {"codec": "mpeg4"},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx"},
    "a.gif": {"codec": "gif", "pixels": "rgb8"},
    "a.wmv": {"codec": "wmv2"},
    "a.ts": {},
    "a.flv": {"codec": "flv1"},
    "a.mpg": {"codec": "mpeg2video"},
    "a.mxf": {"codec": "mpeg2video"},
    "a.mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_cut_off_anywhere_is_rejected_and_the_whole_one_read(tmp_path, name):
    path = films.encode(tmp_path / name, 20, **KINDS[name])
    assert video.read_video(path, frames=6, resolution=(8, 12)).shape == (6, 8, 12, 3)
    content = path.read_bytes()
    # Of AVI, the end of the index, which no frame needs, may lack.
    ends = np.unique(np.linspace(0, len(content) - (9 if name == "a.avi" else 1), 15).astype(int))
    for end in ends[(ends % 188 != 0) | (ends == 0)]:  # a transport stream may end between packets
        path.write_bytes(content[:end])
        for part in (video.Part(path), video.Part(path, 0.0, 0.1)):
            with pytest.raises(DataError, match=rf"{name}: truncated or no video"):
                list(video.read_parts(path, [part], frames=6, resolution=(8, 12)))


@pytest.mark.parametrize(
    ("name", "box", "place"), [("end.mp4", b"stsz", 12), ("pieces.mp4", b"trun", 8)]
)
def test_samples_that_no_file_of_this_size_holds_take_no_memory(tmp_path, name, box, place):
    path = films.encode(tmp_path / name, 3, **KINDS[name])
    content = bytearray(path.read_bytes())
    place += content.index(box)
    content[place : place + 4] = (2**26).to_bytes(4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"has [0-9,]+ bytes, needs at least 8,388,608"):
        video.read_all(path)


@pytest.mark.parametrize("after", [bytes(100), b"TAGofsomeoneelse" * 8])
@pytest.mark.parametrize("name", ["end.mp4", "a.mkv", "a.avi", "a.gif"])
def test_bytes_after_the_end_do_no_harm(tmp_path, name, after):
    path = films.encode(tmp_path / name, 6, **KINDS[name])
    before = video.read_all(path)
    with path.open("ab") as file:
        file.write(after)
    np.testing.assert_array_equal(video.read_all(path), before)
