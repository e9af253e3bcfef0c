"""The videos of a study to frames, a few files at a time, into pieces."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.attributes import StoredFile
from glfa_jax.data.pieces import Piece, digest, hashed, read_rows, write_json, write_rows
from glfa_jax.data.video import Part, read_parts
from glfa_jax.files import whole_folder
from glfa_jax.records import Text

BUNDLE = 32  # clips in a piece; a file that holds more has a piece of its own


@dataclass(frozen=True)
class Clips(Piece):
    """A finished piece: frames of some clips; `failed`: clip -> why it could not be read."""

    clips: tuple[Text, ...]
    failed: dict[Text, Text]
    files: dict[Text, StoredFile]

    def video(self, clip: str) -> UInt8[ndarray, "f h w 3"]:
        return read_rows(self.piece / "frames.npy", self.clips.index(clip), 1)[0]


@dataclass(frozen=True)
class ReadClips:
    """The task of making one piece: clips with their parts, those of one file side by side."""

    clips: tuple[tuple[str, Part], ...]
    frames: int
    resolution: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.clips[0][0]}-and-{len(self.clips) - 1}"

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(part.path for _, part in self.clips))

    @property
    def key(self) -> str:
        clips = [(name, str(part.path), part.start, part.duration) for name, part in self.clips]
        return digest(self.sources, clips, self.frames, self.resolution)

    def write(self, piece: Path) -> None:
        """Every clip that can be read; the others are named in the piece and stay black."""
        failed: dict[str, str] = {}
        shape = (len(self.clips), self.frames, *self.resolution, 3)
        with whole_folder(piece) as folder:
            write_rows(folder / "frames.npy", self._read(failed), shape=shape, dtype=np.uint8)
            about = {
                "clips": [name for name, _ in self.clips],
                "failed": failed,
                "files": {str(file): hashed(file) for file in self.sources if file.is_file()},
            }
            write_json(folder / "about.json", about)

    def _read(self, failed: dict[str, str]) -> Iterator[ndarray]:
        black = np.zeros((self.frames, *self.resolution, 3), np.uint8)
        for path, group in groupby(self.clips, key=lambda clip: clip[1].path):
            clips = list(group)
            parts = read_parts(
                path,
                [part for _, part in clips],
                frames=self.frames,
                resolution=self.resolution,
            )
            for number in range(len(clips)):
                try:
                    yield next(parts)
                except DataError as error:
                    failed |= {name: str(error) for name, _ in clips[number:]}
                    for _ in clips[number:]:
                        yield black
                    break


def bundle(
    videos: Mapping[str, Part], *, frames: int, resolution: tuple[int, int]
) -> list[ReadClips]:
    """The tasks that read all clips, each file in one of them."""
    files: dict[Path, list[tuple[str, Part]]] = {}
    for name, part in videos.items():
        files.setdefault(part.path, []).append((name, part))
    bundles: list[list[tuple[str, Part]]] = [[]]
    for clips in files.values():
        if bundles[-1] and len(bundles[-1]) + len(clips) > BUNDLE:
            bundles.append([])
        bundles[-1] += sorted(clips, key=lambda clip: clip[1].start)
    return [ReadClips(tuple(clips), frames, resolution) for clips in bundles if clips]
