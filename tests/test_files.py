"""Files that appear whole or not at all."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import files
from glfa_jax.data import DataError
from glfa_jax.errors import InputError
from glfa_jax.files import savez_atomically, write_atomically


def test_what_was_there_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "arrays.npz"
    savez_atomically(path, a=np.arange(3), names=["x", "y"])
    before = path.read_bytes()

    class Spoilt:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("cut short")

    with pytest.raises(RuntimeError, match="cut short"):
        savez_atomically(path, a=np.arange(4), b=Spoilt())
    assert path.read_bytes() == before
    with np.load(path) as arrays:
        assert {name: x.tolist() for name, x in arrays.items()} == {
            "a": [0, 1, 2],
            "names": ["x", "y"],
        }
    write_atomically(tmp_path / "text", "ä\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "text", "\ud800")
    assert (tmp_path / "text").read_bytes() == "ä\n".encode()


def test_two_writers_never_share_a_name_and_the_dead_leave_nothing(tmp_path):
    path = tmp_path / "text"
    with files.whole_file(path) as first, files.whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
        dead = tmp_path / f".text.partial-{files._HOST}-{2**22 + 1}-0"
        other = tmp_path / ".text.partial-other-host-12-0"
        for place in (dead, other):
            place.mkdir()
        write_atomically(tmp_path / "unlike", "")
        assert dead.exists()
        with files.whole_file(path) as third:
            third.write_text("third")
    assert path.read_text() == "first"
    assert sorted(x.name for x in tmp_path.iterdir()) == [other.name, "text", "unlike"]


def test_a_full_disk_is_said_with_the_file(tmp_path):
    def fill(place: Path) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(InputError, match=rf"{tmp_path}/a: cannot be written, the disk is full \("),
        files.whole_file(tmp_path / "a") as place,
    ):
        fill(place)
    with pytest.raises(InputError, match=r"/none/a: cannot be written \(No such file"):
        write_atomically(tmp_path / "none" / "a", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raised",
    [RuntimeError("odd"), AssertionError(), LookupError("x"), TypeError(), RecursionError()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_reader_raises_is_damage(tmp_path, raised):
    path = tmp_path / "a"
    path.touch()
    with (
        pytest.raises(DataError, match="a: truncated or no MP4"),
        files.reading(path, "MP4", error=DataError),
    ):
        raise raised


def test_what_is_no_plain_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("pipe", "is no plain file"), (".", "is no plain"), ("a", "no such file")):
        with pytest.raises(InputError, match=says):
            files.read_text(tmp_path / name)


@pytest.mark.parametrize(
    "pointer",
    [
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "/annex/objects/MD5E-s123--4d7a.nii.gz\n",
        "../../.git/annex/objects/xx/yy/MD5E-s123--4d7a.nii.gz/MD5E-s123--4d7a.nii.gz",
    ],
)
def test_a_file_that_was_not_fetched_is_named_as_such(tmp_path, pointer):
    (tmp_path / "a.tsv").write_text(pointer)
    (tmp_path / "b.tsv").symlink_to(".git/annex/objects/none")
    with pytest.raises(InputError, match=r"a\.tsv: is a pointer of git-annex or git-lfs, not the"):
        files.read_text(tmp_path / "a.tsv")
    with pytest.raises(InputError, match=r"b\.tsv: is a link to a file that is not there; fetch"):
        files.read_text(tmp_path / "b.tsv")
    (tmp_path / "b.tsv").unlink()
    (tmp_path / "b.tsv").symlink_to(tmp_path / "c.tsv")
    (tmp_path / "c.tsv").write_text("one row")
    assert files.read_text(tmp_path / "b.tsv") == "one row"


def test_a_path_that_the_system_rejects_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)"):
        files.read_text(tmp_path / ("a" * 300))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 10**5, "nested too deeply"),
        (b"{", "not valid JSON"),
        (b"\xff", "must be UTF-8"),
        (b"[]", "must hold a JSON object"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "not valid JSON .'b' is given twice"),
    ],
)
def test_json_that_is_none(tmp_path, content, says):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=says):
        files.read_object(tmp_path / "a.json")


def test_checksums_find_a_flipped_bit_and_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    files.verify_checksums(tmp_path)  # not listed: not checked
    (tmp_path / files.CHECKSUMS).write_text(files.checksums_of(tmp_path))
    assert (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n"
        in (tmp_path / files.CHECKSUMS).read_text()
    )
    files.verify_checksums(tmp_path)
    (tmp_path / "a").write_bytes(b"abb")
    with pytest.raises(InputError, match="a: is not what was written"):
        files.verify_checksums(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(InputError, match="a: no such file"):
        files.verify_checksums(tmp_path)
    for nothing in ("damaged\n", "", f"{'0' * 64}  ../a\n"):
        (tmp_path / files.CHECKSUMS).write_text(nothing)
        with pytest.raises(InputError, match="line 1 is no checksum"):
            files.verify_checksums(tmp_path)
    (tmp_path / files.CHECKSUMS).write_text(f"{hashlib.sha256(b'').hexdigest()} *b\n")
    files.verify_checksums(tmp_path)  # as `sha256sum --binary` writes it


def test_what_is_no_array_in_an_archive_of_arrays_is_left_out(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, good=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bad.npy", b"no array")
    assert list(files.read_arrays(path, "archive")) == ["good"]


@pytest.mark.parametrize("rest", ["x", "\u00b2", "1" + "0" * 30, "0"])
def test_names_beside_a_file_that_tell_no_process_hinder_no_writer(tmp_path, rest):
    whole = files.aside(tmp_path / "a.json").name
    host = whole.rpartition(".partial-")[2].rsplit("-", 2)[0]
    (tmp_path / f".a.json.partial-{host}-{rest}-abcdef12").touch()
    files.write_atomically(tmp_path / "a.json", "{}")
    assert (tmp_path / "a.json").read_text() == "{}"
