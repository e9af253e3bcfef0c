"""The generator's encoding of every clip, a VAE's posterior, kept in a prepared store.

    {split}/latents   (clip, frame, height, width, channel) float32   mean, then log-variance

Written shard by shard under another name, which it changes when the last shard is there: a writer
that was stopped goes on where it was. The attribute `vae` tells whose latents they are.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.zarr import PLAIN, Layout, declared_shape, reading, writing
from glfa_jax.errors import InputError
from glfa_jax.files import read_object
from glfa_jax.lock import alone

REMEDY = "remove its folder, train.latents makes it again"


def stored_vae(store: Path, split: str) -> str | None:
    """The attribute `vae` of a store's finished latents; None where it has none."""
    return _vae_of(store / split / "latents")


def open_latents(store: Path, split: str, *, video: tuple[int, ...]) -> Any:
    """The array of finished latents, for reading; video: shape of the split's."""
    name = f"{split}/latents"
    with reading(store, name, remedy=REMEDY):
        content = read_object(store / name / "zarr.json")
        shard = content["chunk_grid"]["configuration"]["chunk_shape"][0]
        shape = declared_shape(store / name)
        if shape[0] != video[0] or shape[1] > video[1]:  # a codec may compress time
            raise InputError(f"{shape[:2]} clips and frames, the videos are {video[:2]}")
        layout = _layout(shape, shard=shard)
        return layout.open(store / name, sizes=[None for _ in layout.files()])


def _layout(shape: tuple[int, ...], *, shard: int, vae: str | None = None) -> Layout:
    return Layout(
        "float32",
        shape,
        ("clip", "frame", "height", "width", "channel"),
        shard,
        fill="NaN",  # samples that equal the fill value are not stored
        codec=PLAIN,  # random digits: packing saves little and takes long
        attributes=None if vae is None else {"vae": vae},
    )


@contextmanager
def writing_latents(store: Path, split: str, **latents: Any) -> Iterator["LatentsWriter"]:
    """A LatentsWriter of these, alone at work: waits for another process, and then finds what that
    one has done.

    Where the latents are finished, nothing is written, and the store may be read-only.
    """
    with nullcontext() if stored_vae(store, split) else alone(store / split / "latents"):
        yield LatentsWriter(store, split, **latents)


class LatentsWriter:
    """Fills the latents of one split of a store.

    sample: frames, height, width, channels of a clip's. vae: identity of the codec.
    Raises DataError when the store has latents of another VAE, or cannot be written.
    """

    def __init__(
        self,
        store: Path,
        split: str,
        *,
        clips: int,
        shard: int,
        sample: tuple[int, int, int, int],
        vae: str,
    ):
        self.path = store / split / "latents"
        self._aside = self.path.with_name(".latents.partial")
        self._shards = [range(start, min(start + shard, clips)) for start in range(0, clips, shard)]
        stored = _vae_of(self.path)
        if stored not in (None, vae):
            raise DataError(
                f"{self.path}: was made with another VAE; remove it or choose another data.store"
            )
        self.finished = stored == vae
        if not self.finished:
            layout = _layout((clips, *sample), shard=shard, vae=vae)
            if not _fits(self._aside, layout, vae=vae):
                shutil.rmtree(self._aside, ignore_errors=True)
            with self._writing():
                self._files = list(layout.files())
                self._array = layout.create(self._aside)

    def pending(self) -> list[range]:
        """The shards, as the numbers of their clips, that are not written yet."""
        if self.finished:
            return []
        return [
            shard
            for shard, file in zip(self._shards, self._files, strict=True)
            if not (self._aside / file).is_file()
        ]

    def write(self, shard: range, values: Float[ndarray, "b f h w 2c"]) -> None:
        """One shard of `pending`, whole."""
        with self._writing():
            self._array[shard.start : shard.stop].write(values).result()

    def finish(self) -> None:
        """Gives the array its name."""
        if not self.finished:
            with self._writing():
                self._aside.rename(self.path)
            self.finished = True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with writing(self.path):
                yield
        except InputError as error:
            raise DataError(
                f"{error}; what is written stays, the same command goes on from there"
            ) from None


def _fits(aside: Path, layout: Layout, *, vae: str) -> bool:
    """Whether an earlier writer has begun with the very same."""
    try:
        if _vae_of(aside) != vae:
            return False
        layout.open(aside)
    except (ValueError, OSError):
        return False
    return True


def _vae_of(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        return str(read_object(path / "zarr.json")["attributes"]["vae"])
    except (InputError, KeyError, TypeError):
        raise DataError(f"{path}: not latents of glfa_jax; remove it") from None
