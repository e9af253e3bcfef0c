"""Captions of the benchmark's clips as other groups distribute them: a file a split, in order.

GT_train_caption.pt, GT_test_caption.pt         NeuroClips: numpy's text, saved by PyTorch
Train_captions_new.h5, Test_captions_new.h5     Mind-Animator: a data set of texts
text_train_256_3hz.npy, text_test_256_3hz.npy   MinD-Video: (film, clip, frame), a caption a frame
train.json, test.json                           a list of texts
train.txt, test.txt                             a caption a line

Nothing in them is ever run. Of several captions of a clip the one that most of them are is taken.
"""

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax.data import DataError, reading
from glfa_jax.data.captions import LONGEST, MISSING
from glfa_jax.data.hdf5 import read_texts
from glfa_jax.data.layouts import Problems, Split
from glfa_jax.data.layouts.numpy_pickle import FUNCTIONS, NAMES, Array, read_header, told
from glfa_jax.data.majority import majority
from glfa_jax.files import ALWAYS, EXPANSION, MOST_TEXT, read_json, read_text
from glfa_jax.unpickle import PickledError, load

MOST = 2**18  # captions of a file; those of MinD-Video are six a clip
_SPLIT = re.compile("train|test", re.IGNORECASE)
_WORD = re.compile("(?<![a-z])(?:train|test)(?![a-z])", re.IGNORECASE)  # not as in latest
_OTHER = {"train": "test", "Train": "Test", "TRAIN": "TEST"}
_OTHER |= {test: train for train, test in _OTHER.items()}
# As PyTorch spells tensors, so that a file of embeddings is called one.
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_TENSORS += tuple(f"torch.{kind}Storage" for kind in ("Float", "Half", "Double", "BFloat16"))


def is_list(path: Path) -> bool:
    """Whether a file is one of these, and no table with a row a clip."""
    listed = path.suffix.lower() in _READERS
    return listed and (path.suffix.lower() != ".txt" or bool(_SPLIT.search(path.stem)))


def read_lists(
    path: Path, clips: Mapping[Split, Sequence[str]], problems: Problems
) -> tuple[dict[str, str], tuple[Path, ...]]:
    """Captions by clip, and the files they were read from.

    path: of either split; the other lies beside it. clips: of each split, in the files' order.
    """
    found: dict[str, str] = {}
    files = _both(path)
    for split, names in clips.items():
        for clip, captions in zip(names, _read(files[split], names), strict=True):
            caption, _ = majority(captions)
            if caption:
                found[clip] = caption
            else:
                problems.add(DataError(f"{files[split]}: clip {clip} has an empty caption"))
    return found, tuple(files.values())


def _both(path: Path) -> dict[str, Path]:
    """The files of both splits by the name of one: where its name says train or test, last, as a
    word of its own if it does so anywhere."""
    places = list(_WORD.finditer(path.name)) or list(_SPLIT.finditer(path.name))
    if not places or places[-1][0] not in _OTHER:
        raise DataError(
            f"{path}: must have train or test in its name, with the captions of the other split in "
            "a file beside it whose name has the other of these words"
        )
    word, start, end = places[-1][0], *places[-1].span()
    other = path.with_name(f"{path.name[:start]}{_OTHER[word]}{path.name[end:]}")
    return {word.lower(): path, _OTHER[word].lower(): other}


def _read(path: Path, clips: Sequence[str]) -> Iterator[list[str]]:
    """The captions of each clip, of which some may be empty."""
    try:
        shape, values = _READERS[path.suffix.lower()](path)
    except PickledError as error:
        raise DataError(f"{path}: {error}") from None
    each = _each(shape, len(clips))
    if each is None or len(values) != each * len(clips):
        held = f"{shape[0]:,}" if len(shape) == 1 else str(shape)
        raise DataError(
            f"{path}: holds {held} captions, must hold {len(clips):,}, one for each clip from "
            f"{clips[0]} to {clips[-1]} in order"
        )
    return (
        [_stripped(path, clip, value) for value in values[each * i : each * (i + 1)]]
        for i, clip in enumerate(clips)
    )


def _each(shape: Sequence[int], clips: int) -> int | None:
    """Captions of one clip: the shape is that of the clips, or of films and clips, and of frames
    behind where there are several captions a clip."""
    counts = [math.prod(shape[:i]) for i in range(1, len(shape) + 1)]
    if clips not in counts or len(shape) - counts.index(clips) > 2:
        return None
    return math.prod(shape) // clips


def _stripped(path: Path, clip: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}: clip {clip} has no text as its caption, but {told(value)}")
    if len(value) > LONGEST:
        raise DataError(f"{path}: clip {clip} has a caption of {len(value):,} letters")
    text = " ".join(value.split())
    return "" if text in MISSING else text


def _nested(content: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and values of lists in lists, all of a level as long, and of numpy's arrays."""
    if isinstance(content, Array):
        return content.shape, content.texts()
    shape: list[int] = []
    values = [content]
    while values and isinstance(values[0], (list, tuple)) and len(shape) < 3:
        if any(not isinstance(v, (list, tuple)) or len(v) != len(values[0]) for v in values):
            break
        shape.append(len(values[0]))
        if len(values) * shape[-1] > MOST:
            raise PickledError(f"holds more than {MOST:,} captions")
        values = [item for value in values for item in value]
    if not shape:
        raise PickledError(f"must hold a list of captions, holds {told(content)}")
    return tuple(shape), values


def _small(path: Path) -> bytes:
    with reading(path, "file of captions"):
        if (size := path.stat().st_size) > MOST_TEXT:
            raise PickledError(f"{size:,} bytes, far more than captions need")
        return path.read_bytes()


def _pt(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    """What PyTorch saved: a zip file with one pickle; tensors would lie beside it."""
    content = _small(path)
    with reading(path, "file that PyTorch saved"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise PickledError("a zip file, but not of PyTorch: it must hold one data.pkl")
        if pickles[0].file_size > max(ALWAYS, EXPANSION * len(content)):
            raise PickledError("grows far beyond its size when it is unpacked")
        return _unpickled(io.BytesIO(archive.read(pickles[0])))


def _unpickled(file: io.BytesIO) -> tuple[tuple[int, ...], list[Any]]:
    names = (*NAMES, *_TENSORS)
    return _nested(load(file, functions=FUNCTIONS, names=names, persistent=_tensor, most=8 * MOST))


def _tensor(_: Any) -> Any:
    raise PickledError("holds tensors, must hold captions as text")


def _npy(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    file = io.BytesIO(_small(path))
    with reading(path, "numpy file of captions"):
        shape, dtype = read_header(file)
        if dtype == np.dtype(object):
            return _unpickled(file)
        if dtype.kind != "U":
            raise PickledError(f"holds {dtype}, must hold captions as text")
        values = np.frombuffer(file.read(), dtype, math.prod(shape))
        return shape, values.tolist()


def _h5(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    return _nested(read_texts(path, most=MOST))


def _json(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    return _nested(read_json(path, error=DataError))


def _txt(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    return _nested(read_text(path, error=DataError).removesuffix("\n").split("\n"))


_READERS = {".pt": _pt, ".pth": _pt, ".npy": _npy, ".h5": _h5, ".hdf5": _h5, ".json": _json}
_READERS |= {".txt": _txt}
