"""Frames at a moment, in files as they come from cameras, editors and other people."""

import os
from contextlib import closing

import av
import numpy as np
import pytest
from PIL import Image

from glfa_jax.data import DataError, film, video
from tests.data import films
from tests.data.scans import truncate

SIZE = (films.HEIGHT, films.WIDTH)
PLAIN = {"bf": "0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def clip(folder):
    return films.encode(folder / "clip.mp4", 6)


@pytest.fixture(scope="module")
def long(folder):
    """Ten seconds, and a place to begin in each but the first."""
    return films.encode(folder / "long.mp4", 250, options={"g": "25"})


def read(path, *, frames=6, size=SIZE):
    """The whole file, in both ways that there are."""
    whole = video.read_video(path, frames=frames, resolution=size)
    with closing(film.Film(path)) as opened:
        part = video.Part(path, 0.0, opened.end)
    [parted] = video.read_parts(path, [part], frames=frames, resolution=size)
    np.testing.assert_array_equal(whole, parted)
    return whole


# --- turned ---------------------------------------------------------------------------------------

# What is done to (height, width) so that it is as a player shows it, for each matrix.
TURNS = {
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),  # clockwise
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): np.rot90,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda x: np.swapaxes(x, 0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(np.swapaxes(x, 0, 1), 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_images_are_upright_however_the_camera_was_held(clip, tmp_path, matrix):
    turned = films.turn(clip, tmp_path / "a.mp4", *matrix)
    expected = np.stack([TURNS[matrix](image) for image in video.read_all(clip)])
    np.testing.assert_array_equal(video.read_all(turned), expected)
    np.testing.assert_array_equal(read(turned, size=expected.shape[1:3]), expected)


def test_a_turn_is_a_quarter_turn_within_rounding_or_rejected(clip, tmp_path):
    nearly = films.turn(clip, tmp_path / "a.mp4", 0.001, 0.999, -1.001, -0.001)
    np.testing.assert_array_equal(
        video.read_all(nearly), np.rot90(video.read_all(clip), -1, axes=(1, 2))
    )
    askew = films.turn(clip, tmp_path / "b.mp4", 0.7, 0.7, -0.7, 0.7)
    with pytest.raises(DataError, match=r"b\.mp4: is shown turned by no quarter turns"):
        read(askew)


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [0.2, 1.0])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "mpeg4"),
        ("a.webm", "libvpx"),
        ("a.gif", "gif"),
        ("a.wmv", "wmv2"),  # begins later than at 0, without saying so
    ],
)
def test_the_last_image_stays_as_long_as_the_file_says(tmp_path, name, codec, last):
    options = PLAIN if codec == "libx264" else {}
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    steady = films.encode(
        tmp_path / f"steady-{name}", 5, rate=10, codec=codec, options=options, pixels=pixels
    )
    seconds = [0.1, 0.2, 0.1, 0.6, last]
    films.copy(steady, tmp_path / name, seconds=seconds)
    every = video.read_all(tmp_path / name)
    starts = np.cumsum([0, *seconds])
    moments = (np.arange(20) + 0.5) / 20 * starts[-1] + 1e-6
    expected = every[np.searchsorted(starts, moments, side="right") - 1]
    np.testing.assert_array_equal(read(tmp_path / name, frames=20), expected)


def test_one_duration_for_all_of_irregular_images_is_not_taken_for_that_of_the_last():
    starts, same = np.array([0, 0.1, 0.3, 0.4, 1.0]), np.full(5, 0.04)
    about = {"rate": 25.0, "unit": 1e-3}
    assert film._last_step(starts, same, ends=iter([2.0]), **about) == 1.0
    assert film._last_step(starts, same, ends=iter([0.5]), **about) == 0.04  # cannot be
    assert film._last_step(starts, 0 * same, ends=iter([]), **about) == 0.04
    steady = np.arange(5) / 30
    thirds = {"rate": 30.0, "unit": 1e-3, "ends": iter([9.0])}
    assert film._last_step(steady.round(3), np.full(5, 0.033), **thirds) == 1 / 30


def test_a_clip_cut_out_without_encoding_shows_what_its_edit_list_says(long, tmp_path):
    cut = films.copy(long, tmp_path / "cut.mp4", move=-3.4, until=5.4)
    every = video.read_all(cut)
    np.testing.assert_array_equal(every[:50], video.read_all(long)[85:135])
    np.testing.assert_array_equal(read(cut, frames=len(every)), every)
    content = cut.read_bytes()
    for end in range(200, len(content), 1000):
        cut.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"cut\.mp4: "):
            read(cut)


def test_an_avi_with_dropped_frames_shows_those_before_them_longer(tmp_path):
    steady = films.encode(tmp_path / "a.avi", 5, codec="mpeg4")
    films.copy(steady, tmp_path / "b.avi", seconds=[0.04, 0.12, 0.04, 0.2, 0.04])
    with av.open(str(tmp_path / "b.avi")) as container:
        assert container.streams.video[0].frames == 11
    every = video.read_all(tmp_path / "a.avi")
    shown = every[np.repeat(np.arange(5), [1, 3, 1, 5, 1])]
    np.testing.assert_array_equal(read(tmp_path / "b.avi", frames=11), shown)


def test_an_avi_that_says_of_images_that_nothing_has_changed_is_whole(tmp_path):
    path = films.encode(tmp_path / "a.avi", 8, codec="mpeg4", options={"g": "8"})
    content, same, place = bytearray(path.read_bytes()), (3, 4, 7), 0
    for number in range(8):
        place = content.index(b"\x00\x00\x01\xb6", place) + 4
        if number in same:
            content[place + 1] &= 0xDF  # the bit that says that something follows
    expected = video.read_all(path)
    path.write_bytes(content)
    back = read(path, frames=8)
    np.testing.assert_array_equal(back[:3], expected[:3])
    for number in same:
        np.testing.assert_array_equal(back[number], back[number - 1])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "libx264"), ("a.avi", "mpeg4"), ("a.mxf", "libx264")]
)
def test_images_predicted_from_later_ones_are_in_order(tmp_path, name, codec):
    path = films.encode(tmp_path / name, 12, codec=codec, options={"bf": "2"})
    back = read(path, frames=12).astype(int)
    distance = np.abs(back[:, None] - films.images(12)).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(12)).all()


def test_images_without_any_times_follow_each_other_at_the_frame_rate(tmp_path):
    path = films.encode(tmp_path / "a.h264", 10, format="h264", options=PLAIN)
    np.testing.assert_array_equal(read(path, frames=10), video.read_all(path))
    with closing(film.Film(path)) as opened:
        assert opened.end == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["a%d.jpg", "a*.png", "a.webp", "a.bmp", "a.tiff"])
def test_an_image_alone_is_a_clip_in_which_nothing_moves(tmp_path, name):
    images = [Image.fromarray(image) for image in films.images(2)]
    images[1].save(tmp_path / name.replace("%d", "0").replace("*", "0"))  # what a pattern finds
    images[0].save(tmp_path / name)
    back = read(tmp_path / name, frames=3).astype(int)
    assert np.abs(back - films.images(1)).mean() < 8
    truncate(tmp_path / name, 0.8)
    with pytest.raises(DataError, match=r"truncated or no video \("):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.apng", "apng", "rgb24"),
        ("a.wtv", "mpeg2video", "yuv420p"),
        ("a.swf", "flv", "yuv420p"),
    ],
)
def test_rarer_files_that_hold_their_images_are_read(tmp_path, name, codec, pixels):
    path = films.encode(tmp_path / name, 8, codec=codec, pixels=pixels)
    np.testing.assert_array_equal(read(path, frames=8), video.read_all(path))


# --- only what is needed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options", "most"),
    [
        ("a.mp4", "libx264", {"g": "25"}, 50),
        ("a.mp4", "libx264", {"x264-params": "open-gop=1:keyint=25:scenecut=0"}, 50),
        ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=25"}, 250),
        ("a.mkv", "libx264", {"g": "25"}, 50),
        ("a.webm", "libvpx", {"g": "25", "deadline": "realtime"}, 50),
        ("a.ts", "libx264", {"g": "25"}, 400),
        ("a.avi", "mpeg4", {"g": "25"}, 250),
        ("a.mpg", "mpeg2video", {"g": "25", "bf": "2"}, 400),
    ],
)
def test_what_is_skipped_changes_no_image(tmp_path, name, codec, options, most):
    path = films.encode(tmp_path / name, 250, codec=codec, options=options)
    numbers = [12, 105, 107, 242]
    with closing(film.Film(path)) as opened:
        quick = list(opened.on_screen([(number + 0.5) / 25 for number in numbers]))
        assert opened.decoded <= most
    every = video.read_all(path)
    np.testing.assert_array_equal(quick, every[numbers])


def test_only_images_that_are_needed_are_converted(long, monkeypatch):
    converted = []
    upright = film._upright
    monkeypatch.setattr(
        film, "_upright", lambda path, frame: converted.append(frame.time) or upright(path, frame)
    )
    video.read_video(long, frames=6, resolution=(8, 12))
    assert len(converted) == 6


def test_large_images_are_scaled_in_pieces_to_the_same_numbers(monkeypatch):
    clip = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3)).astype(np.uint8)
    whole = video.resize(clip, resolution=(20, 30))
    monkeypatch.setattr(video, "PIECE", 5000)
    np.testing.assert_array_equal(video.resize(clip, resolution=(20, 30)), whole)


# --- files of other people ------------------------------------------------------------------------


def test_tags_in_any_encoding_are_of_no_account(tmp_path):
    path = films.encode(tmp_path / "a.mp4", 6)
    plain = path.read_bytes()
    assert b"VideoHandler" in plain
    read_before = read(path)
    path.write_bytes(plain.replace(b"VideoHandler", b"Vid\xe9oH\xffndl\xfer"))
    np.testing.assert_array_equal(read(path), read_before)


@pytest.mark.parametrize(
    "name", ["concat:a|b.mp4", "http:a.mp4", "a%03d.mp4", "file:a.mp4", "pipe:0", "-i", "é?#*.mp4"]
)
def test_a_name_is_a_file_and_nothing_else(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(clip.read_bytes())
    for path in (tmp_path / name, name):
        shown = video.read_video(path, frames=6, resolution=SIZE)
        np.testing.assert_array_equal(shown, video.read_all(clip))


def test_no_other_file_is_read_through_a_video(clip, tmp_path):
    path = tmp_path / "a.mp4"
    stream = films.copy(clip, tmp_path / "stream.ts")
    for text in (
        f"ffconcat version 1.0\nfile {clip}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{stream}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n",
    ):
        for name in ("a.mp4", "a.m3u8"):
            path = tmp_path / name
            path.write_text(text)
            with pytest.raises(DataError, match=rf"{name}: truncated or no video \("):
                read(path)


def test_what_is_no_plain_file_is_rejected_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4"):
        with pytest.raises(DataError, match=rf"{name}: is no plain file"):
            read(tmp_path / name)


def test_a_cover_image_is_not_the_video(tmp_path):
    path = two_videos(tmp_path / "a.mp4", "mjpeg", av.stream.Disposition.attached_pic)
    content = path.read_bytes()
    # Moved before the video, as some write it.
    moov, start, end = (
        content.index(b"moov"),
        content.index(b"trak") - 4,
        content.index(b"udta") - 4,
    )
    assert moov < start < end
    path.write_bytes(content[:start] + content[end:] + content[start:end])
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition == av.stream.Disposition.attached_pic
    assert read(path).mean() < 200


def test_of_several_videos_the_one_is_read_that_a_player_shows(tmp_path):
    assert read(two_videos(tmp_path / "a.mkv", "mpeg4", av.stream.Disposition(0))).mean() < 200


def two_videos(path, codec, disposition):
    """A white one, and one with frames."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(name, rate=25) for name in (codec, "mpeg4")]
        streams[0].disposition = disposition
        streams[1].disposition = av.stream.Disposition.default
        white = np.full((1, *SIZE, 3), 255, np.uint8)
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            stream.codec_context.color_range = 2  # as cover images have it
        for stream, shown in zip(streams, (white, films.images(6)), strict=True):
            for image in shown:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
    return path


def test_a_damaged_image_is_named_and_not_shown(long, tmp_path):
    content = bytearray(long.read_bytes())
    start = content.index(b"mdat")
    middle = (start + content.index(b"moov")) // 2
    content[middle : middle + 400] = bytes(400)
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4: (damaged, the frame at|truncated or no video)"):
        read(tmp_path / "a.mp4", frames=250)
    [before] = video.read_parts(
        tmp_path / "a.mp4", [video.Part(tmp_path / "a.mp4", 0, 2)], frames=6, resolution=SIZE
    )
    assert before.shape == (6, *SIZE, 3)


def test_images_too_large_for_any_memory_are_rejected(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(film, "MOST_PIXELS", 1000)
    with pytest.raises(DataError, match=r"clip\.mp4: frames of 48 x 32 pixels, at most 1,000"):
        read(clip)
