"""Whether a video file ends before what it promises, by the sizes that its format itself writes.

Decoders show what is left of a file whose copying broke off, often without a word.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from glfa_jax.data.damage import reading

_BOXES = (
    *(b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"ssix", b"styp", b"prft", b"emsg"),
    *(b"meta", b"uuid", b"free", b"skip", b"wide", b"pnot"),
)
_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes in a transport stream's packet, before its mark
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # of a Windows Media file
_LONGEST = 8  # bytes of a number in Matroska


def refuse_cut_off(path: Path) -> None:
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
        return _boxes
    if start[:4] == b"RIFF":
        return _riff
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska
    if start[:4] == b"GIF8":
        return _gif
    if start[:4] == b"\x30\x26\xb2\x75":
        return _windows_media
    return _transport if 0x47 in (start[:1] + start[4:5]) else lambda file: 0


def _boxes(file: BinaryIO) -> int:
    """MP4 and QuickTime: boxes one after another."""
    end = 0
    while len(head := _at(file, end, 16)) >= 8:
        size, name = int.from_bytes(head[:4]), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16])
        if size < 8 or name not in _BOXES:  # reaches to the end of the file, or is no box
            break
        end += size
    return end


def _riff(file: BinaryIO) -> int:
    """AVI; some writers count the 8 bytes before the size with it."""
    end = 0
    while (head := _at(file, end, 8))[:4] == b"RIFF":
        size = int.from_bytes(head[4:], "little")
        if size in (0, 2**32 - 1):  # never filled in
            break
        end += 8 + size
    return max(end - 8, 0)


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
