"""Sound files made unsound: bytes, words and JSON changed, also inside of what is compressed.

Everything is drawn from the generator that is handed in, so that equal generators change alike.
"""

import base64
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MOST = 2**22  # bytes that an input may grow to
MOST_CHANGES = 6

_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 10**6, 10**9, 2**31 - 1, 2**31)
_NUMBERS += (2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63))
_FLOATS = (float("nan"), float("inf"), float("-inf"), -0.0, 1e308, 5e-324, 3.5e38)
_WORDS = (
    *("", " ", "0", "-0", "-1", "1", "1_0", "1e999", "-1e999", "1e-999", "nan", "NaN", "inf"),
    *("Infinity", "0x10", "007", "1.5", "1,5", "+1", "1e5", "9" * 19, "1" + "0" * 400),
    *("true", "null", "None", "[]", "{}", '""', "'", '"', "\\", "\x00", "\x1b[2J", "\ufeff"),
    *(
        "\u2028",
        "\u202e",
        "\u0661",
        "\u00bd",
        "e\u0301",
        "\ud7ff",
        "\r",
        "\r\n",
        "\n",
        "\t",
        "\t\t",
    ),
    *("..", "../..", "/", "/dev/zero", "/etc/passwd", "CON", "a/b", "a" * 300, "%s%n", "{0}", "~"),
    *("x" * 100_000, "[" * 100_000, '{"a":' * 50_000, "(" * 5000, "- " * 5000, "\u00e9" * 70_000),
)
_TOKEN = re.compile(r"[\w.+-]+|\s|[^\w\s]")
_DEEP = "\ue000deep\ue000"  # stands for nesting that no JSON writer would follow
_DATA = re.compile(rb"<Data>([A-Za-z0-9+/=\s]*)</Data>")

Change = Callable[[bytes, np.random.Generator], bytes]


def mutated(
    content: bytes,
    rng: np.random.Generator,
    *,
    others: Sequence[bytes] = (),
    words: Sequence[str] = (),
) -> bytes:
    """A few changes of `content`, one after another.

    others: sound files of the same kind, to be spliced with. words: what the format is made of.
    """

    def once(content: bytes, rng: np.random.Generator) -> bytes:
        ways = _ways(content, others, words)
        return ways[rng.integers(len(ways))](content, rng)[:MOST]

    for _ in range(min(int(rng.geometric(0.5)), MOST_CHANGES)):
        content = once(content, rng)
    return content


def _ways(content: bytes, others: Sequence[bytes], words: Sequence[str]) -> list[Change]:
    """The changes that suit what the content looks like; the likely ones are there twice."""
    ways: list[Change] = [_flip, _byte, _number, _insert, _delete, _repeat, _cut]
    if others:
        ways.append(lambda content, rng: _splice(content, others[rng.integers(len(others))], rng))

    def again(content: bytes, rng: np.random.Generator) -> bytes:
        return mutated(content, rng, words=words)

    text = _text(content)
    if text is not None:
        ways += 2 * [lambda content, rng: _in_words(_text(content) or "", rng, words)]
        if text.lstrip()[:1] in ("{", "["):
            ways += 8 * [lambda content, rng: _in_json(content, rng, words)]
        if "<Data>" in text:
            ways += 4 * [lambda content, rng: _in_data(content, rng, again)]
    if words:
        ways.append(lambda content, rng: _word(content, rng, words))
    for begin, inside in (
        (b"\x1f\x8b", _in_gzip),
        (b"PK\x03\x04", _in_zip),
        (b"\x93NUMPY", _in_numpy),
    ):
        if content.startswith(begin):
            ways += 7 * [lambda content, rng, inside=inside: inside(content, rng, again)]
    if content[8:9] == b"{":
        ways += 7 * [lambda content, rng: _in_safetensors(content, rng, again)]
    return ways


# --- bytes ----------------------------------------------------------------------------------------


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Somewhere; every other time near the beginning, where headers are."""
    end = len(content) + 1
    return int(rng.integers(min(end, 2 ** int(rng.integers(2, 12))) if rng.random() < 0.5 else end))


def _length(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(1, 2 ** int(rng.integers(1, max(len(content), 2).bit_length() + 1))))


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content or b"\0")
    changed[min(_place(content, rng), len(changed) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _byte(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + bytes([int(rng.integers(256))]) + content[place + 1 :]


def _number(content: bytes, rng: np.random.Generator) -> bytes:
    """A number that readers stumble over, in some width, in either order of bytes."""
    order = "<>"[rng.integers(2)]
    if rng.random() < 0.25:
        packed = struct.pack(order + "d", _FLOATS[rng.integers(len(_FLOATS))])
        if rng.random() < 0.5:
            with np.errstate(over="ignore"):
                packed = np.array(struct.unpack(order + "d", packed), order + "f4").tobytes()
    else:
        size = int(2 ** rng.integers(4))
        number = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
        packed = number.to_bytes(size, "little" if order == "<" else "big")
    place = _place(content, rng)
    return content[:place] + packed + content[place + len(packed) :]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + rng.bytes(min(_length(content, rng), 4096)) + content[place:]


def _delete(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + _length(content, rng) :]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    block = content[place : place + _length(content, rng)]
    times = min(2 ** int(rng.integers(1, 12)), MOST // max(len(block), 1))
    return content[:place] + block * times + content[place:]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _splice(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def _word(content: bytes, rng: np.random.Generator, words: Sequence[str]) -> bytes:
    place = _place(content, rng)
    word = words[rng.integers(len(words))].encode("utf-8", "surrogateescape")
    return content[:place] + word + content[place + (len(word) if rng.random() < 0.5 else 0) :]


# --- text -----------------------------------------------------------------------------------------


def _text(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if "\0" not in text[:1000] else None


def _any_word(rng: np.random.Generator, words: Sequence[str]) -> str:
    chosen = words if words and rng.random() < 0.5 else _WORDS
    return chosen[rng.integers(len(chosen))]


def _in_words(text: str, rng: np.random.Generator, words: Sequence[str]) -> bytes:
    """Words replaced, put in, left out, doubled, exchanged; lines shuffled; another encoding."""
    tokens = _TOKEN.findall(text[:MOST]) or [""]
    place, other = rng.integers(len(tokens), size=2)
    match int(rng.integers(7)):
        case 0 | 1:
            tokens[place] = _any_word(rng, words)
        case 2:
            tokens.insert(place, _any_word(rng, words))
        case 3:
            del tokens[place]
        case 4:
            tokens[place], tokens[other] = tokens[other], tokens[place]
        case 5:
            lines = text.splitlines(keepends=True)
            order = rng.integers(len(lines), size=len(lines)) if lines else []
            tokens = [lines[i] for i in order]
        case _:
            codes = ("utf-8-sig", "utf-16", "utf-32", "utf-16-be", "latin-1", "cp500")
            return text.encode(codes[rng.integers(len(codes))], "replace")
    return "".join(tokens).encode("utf-8", "surrogatepass")


# --- JSON -----------------------------------------------------------------------------------------


def _in_json(content: bytes, rng: np.random.Generator, words: Sequence[str]) -> bytes:
    """One value, anywhere in the tree, left out, doubled, wrapped or of another kind."""
    try:
        root = [json.loads(content)]
    except (ValueError, RecursionError):
        return _in_words(content.decode("utf-8", "replace"), rng, words)
    holder, key = _any_node(root, rng)
    value = holder[key]
    match int(rng.integers(8)):
        case 0:
            if holder is not root:
                del holder[key]
        case 1:
            holder[key] = [value]
        case 2:
            holder[key] = {"a": value}
        case 3:
            holder[key] = str(value) if rng.random() < 0.5 else bool(value)
        case 4 if isinstance(holder, dict):
            holder[_any_word(rng, words)[:1000]] = holder.pop(key)
        case 5 if isinstance(value, list):
            holder[key] = value * int(rng.integers(2, 1000)) if rng.random() < 0.5 else value[:-1]
        case 6:
            there, place = _any_node(root, rng)
            holder[key] = json.loads(json.dumps(there[place]))
        case _:
            holder[key] = _any_value(rng, words)
    text = json.dumps(root[0])[:MOST]
    deep = ("[" * 100_000 + "]" * 100_000, "[" * 400 + "]" * 400)[rng.integers(2)]
    return text.replace(json.dumps(_DEEP), deep).encode()


def _any_node(root: list[Any], rng: np.random.Generator) -> tuple[Any, Any]:
    holder, key = root, 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[rng.integers(len(keys))]
    return holder, key


def _any_value(rng: np.random.Generator, words: Sequence[str]) -> Any:
    values = (None, True, False, [], {}, "", [[]], [None], _DEEP, 10**400, 1.5, *_FLOATS, *_NUMBERS)
    place = int(rng.integers(len(values) + 10))
    return values[place] if place < len(values) else _any_word(rng, words)


# --- what is packed, and what has a length or a checksum ------------------------------------------


def _in_gzip(content: bytes, rng: np.random.Generator, change: Change) -> bytes:
    try:
        plain = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return _flip(content, rng)
    return gzip.compress(change(plain, rng), 1, mtime=0)


def _in_zip(content: bytes, rng: np.random.Generator, change: Change) -> bytes:
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as new:
            members = archive.infolist()
            chosen = rng.integers(len(members)) if members else 0
            for number, member in enumerate(members):
                if member.file_size > MOST:
                    return _flip(content, rng)
                plain = archive.read(member)
                kept = zipfile.ZipInfo(member.filename)
                kept.compress_type = member.compress_type
                new.writestr(kept, change(plain, rng) if number == chosen else plain)
    except Exception:  # what was changed before is no archive any more
        return _flip(content, rng)
    return packed.getvalue()


def _in_numpy(content: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """The header's text changed, and its length set right."""
    size = 2 if content[6:7] == b"\1" else 4
    start = 8 + size
    end = start + int.from_bytes(content[8:start], "little")
    header = change(content[start:end], rng)[: 256**size - 1]
    return content[:8] + len(header).to_bytes(size, "little") + header + content[end:]


def _in_safetensors(content: bytes, rng: np.random.Generator, change: Change) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    header = change(content[8:end], rng)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _in_data(content: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """One array of a GIFTI file: base64, mostly of zlib."""
    found = list(_DATA.finditer(content))
    if not found:
        return _flip(content, rng)
    chosen = found[rng.integers(len(found))]
    try:
        held = base64.b64decode(chosen[1])
    except ValueError:
        held = chosen[1]
    try:
        plain, pack = zlib.decompress(held), lambda x: zlib.compress(x, 1)
    except zlib.error:
        plain, pack = held, bytes
    new = base64.b64encode(pack(change(plain, rng)))
    return content[: chosen.start(1)] + new + content[chosen.end(1) :]
