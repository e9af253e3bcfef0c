"""Whether a video file ends before what it promises, by the sizes that its format itself writes.

Decoders show what is left of a file whose copying broke off, often without a word.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from glfa_jax.data import reading

_BOXES = (
    *(b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"ssix", b"styp", b"prft", b"emsg"),
    *(b"meta", b"uuid", b"free", b"skip", b"wide", b"pnot"),
)
_HOLDING_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_COUNTS = {b"stsz": 16, b"trun": 12}  # where in these boxes the number of samples stands
_FEW = 2**22  # samples, which take 100 MB
_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes in a transport stream's packet, before its mark
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # of a Windows Media file
_PROGRAM = b"\0\0\1\xba"
_MATERIAL = b"\6\x0e\x2b\x34"
_HEAD = 32  # bytes that tell the length of any piece
_LONGEST = 8  # bytes of a number in Matroska


def validate_complete(path: Path) -> None:
    with reading(path, "video"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(16)
        file.seek(0)
        needed = _format(start)(file)
        if needed > size:
            raise ValueError(f"has {size:,} bytes, needs at least {needed:,}; copy it anew")


def _format(start: bytes) -> Callable[[BinaryIO], int]:
    """What tells how many bytes a file that starts so must have, 0 where that is not known."""
    if start[4:8] in _BOXES:
        return _movie
    if start[:4] == b"RIFF":
        # Some writers count the 8 bytes before the size with it.
        return lambda file: _chain(file, 0, _chunk) - 8
    if start[:3] == b"FLV":
        return partial(_chain, start=13, length=_tag)
    if start[:4] == _PROGRAM:
        return partial(_chain, start=0, length=_pack)
    if start[:4] == _MATERIAL:
        return partial(_chain, start=0, length=_triplet)
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska
    if start[:4] == b"GIF8":
        return _gif
    if start[:2] == b"\xff\xd8":
        return _jpeg
    if start[:4] == b"\x30\x26\xb2\x75":
        return _windows_media
    return _transport if 0x47 in (start[:1] + start[4:5]) else lambda file: 0


def _chain(file: BinaryIO, start: int, length: Callable[[bytes], int]) -> int:
    """Where the last of the pieces ends that follow one another from `start`.

    length: of a piece by its first bytes, 0 where it is none.
    """
    end = start
    while (head := _at(file, end, _HEAD)) and (size := length(head)):
        end += size
    return end


def _movie(file: BinaryIO) -> int:
    """MP4 and QuickTime; libraries make room for all samples that it announces.

    Of sound in old codecs a byte may hold several.
    """
    end = _chain(file, 0, lambda head: _size(head) if head[4:8] in _BOXES else 0)
    samples = _samples(file, 0, end)
    return max(end, samples // 8 if samples > _FEW else 0)


def _samples(file: BinaryIO, start: int, end: int) -> int:
    """How many the boxes there announce."""
    count = 0
    while start < end and (size := _size(head := _at(file, start, _HEAD))):
        if head[4:8] in _HOLDING_BOXES:
            count += _samples(file, start + 8, min(start + size, end))
        elif place := _COUNTS.get(head[4:8]):
            count += int.from_bytes(head[place : place + 4])
        start += size
    return count


def _size(head: bytes) -> int:
    """Of a box; 0 where it is left open, to the end of the file."""
    size = int.from_bytes(head[:4])
    if size == 1:
        size = int.from_bytes(head[8:16])
    return size if size >= 8 else 0


def _chunk(head: bytes) -> int:
    """Of AVI, in which the size may never have been filled in."""
    size = int.from_bytes(head[4:8], "little")
    return 8 + size if head[:4] == b"RIFF" and 0 < size < 2**32 - 1 else 0


def _tag(head: bytes) -> int:
    """Of Flash video, with its size repeated behind it."""
    return 15 + int.from_bytes(head[1:4]) if head[0] in (8, 9, 18) else 0


def _pack(head: bytes) -> int:
    """Of an MPEG program stream."""
    if head[:4] == _PROGRAM:
        return 14 + (head[13] & 7 if len(head) > 13 else 0) if head[4:5] >= b"\x40" else 12
    if head[:3] == _PROGRAM[:3] and head[3:4] >= b"\xbb":
        return 6 + int.from_bytes(head[4:6])
    return 0


def _triplet(head: bytes) -> int:
    """Of MXF: a key of 16 bytes, a length of one byte or as many as that says, a value."""
    if head[:4] != _MATERIAL:
        return 0
    first = int.from_bytes(head[16:17])
    after = 17 + (first & 127 if first & 128 else 0)
    return after + (int.from_bytes(head[17:after]) if first & 128 else first)


def _matroska(file: BinaryIO) -> int:
    """Matroska and WebM: a head, then one segment."""
    head = _number(file, 4)
    if head is None:
        return 0
    segment = head[0] + head[1]
    size = _number(file, segment + 4)
    return 0 if size is None else sum(size)


def _number(file: BinaryIO, place: int) -> tuple[int, int] | None:
    """Where a size ends and what it says; None where it is left open."""
    content = _at(file, place, _LONGEST)
    length = _LONGEST + 1 - content[0].bit_length() if content and content[0] else 0
    value = int.from_bytes(content[:length]) & ((1 << 7 * length) - 1)
    return (place + length, value) if length and value != (1 << 7 * length) - 1 else None


def _gif(file: BinaryIO) -> int:
    """Blocks up to the mark of the end."""
    file.seek(13 + _colours(_at(file, 10, 1)))
    while (mark := file.read(1)) in (b"!", b","):
        if mark == b"!":
            file.seek(1, os.SEEK_CUR)
        else:
            about = file.read(9)
            file.seek(_colours(about[8:]) + 1, os.SEEK_CUR)
        while length := file.read(1):
            if length == b"\0":
                break
            file.seek(length[0], os.SEEK_CUR)
    # Whatever else follows than the mark of the end is passed over, as players do.
    return file.tell() + (not mark)


def _colours(flags: bytes) -> int:
    """Bytes of the table of colours that the flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


def _jpeg(file: BinaryIO) -> int:
    """One frame or more: behind where the last, or its scan, begins lies the mark of its end."""
    size = os.fstat(file.fileno()).st_size
    tail = _at(file, max(0, size - 2**24), 2**24)
    begins = max(tail.rfind(b"\xff\xd8"), tail.rfind(b"\xff\xda"))
    return size + (tail.rfind(b"\xff\xd9") < begins)


def _windows_media(file: BinaryIO) -> int:
    """A head in which one object tells the size of the file."""
    head = file.read(2**16)
    place = head.find(_PROPERTIES)
    return int.from_bytes(head[place + 40 : place + 48], "little") if place >= 0 else 0


def _transport(file: BinaryIO) -> int:
    """MPEG transport streams: packets of one length."""
    size = os.fstat(file.fileno()).st_size
    for length, before in _PACKETS:
        if size > 3 * length and all(
            _at(file, before + i * length, 1) == b"\x47" for i in range(3)
        ):
            return -(-size // length) * length
    return 0


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
