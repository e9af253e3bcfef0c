"""The VAE's posterior of every clip, kept in a prepared store.

    {split}/latents   (clip, frame, height, width, channel) float32   mean, then log-variance

Written shard by shard under another name, which it changes when the last shard is there: a writer
that was stopped goes on where it was. The attribute `vae` tells whose latents they are.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import tensorstore as ts
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.zarr import PLAIN, array_spec


def stored_vae(store: Path, split: str) -> str | None:
    """The attribute `vae` of a store's finished latents; None where it has none."""
    return _vae_of(store / split / "latents")


class LatentsWriter:
    """Fills the latents of one split of a store.

    sample: frames, height, width, channels of a clip's. vae: see above.
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
            if _vae_of(self._aside) != vae:
                shutil.rmtree(self._aside, ignore_errors=True)
            self._array = self._guarded(
                lambda: ts.open(
                    array_spec(
                        self._aside,
                        dtype="float32",
                        shape=(clips, *sample),
                        axes=("clip", "frame", "height", "width", "channel"),
                        fill="NaN",  # samples that equal the fill value are not stored
                        shard=shard,
                        codec=PLAIN,  # random digits: packing saves little and takes long
                        attributes={"vae": vae},
                    ),
                    open=True,
                    create=True,
                )
            )

    def pending(self) -> list[range]:
        """The shards, as the numbers of their clips, that are not written yet."""
        if self.finished:
            return []
        return [
            shard
            for number, shard in enumerate(self._shards)
            if not (self._aside / "c" / str(number) / "0/0/0/0").is_file()
        ]

    def write(self, shard: range, values: Float[ndarray, "b f h w 2c"]) -> None:
        """One shard of `pending`, whole."""
        self._guarded(lambda: self._array[shard.start : shard.stop].write(values))

    def finish(self) -> None:
        """Gives the array its name."""
        if not self.finished:
            os.rename(self._aside, self.path)
            self.finished = True

    def _guarded(self, act: Any) -> Any:
        try:
            return act().result()
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.path}: cannot be written ({reason}); what is written stays, the same "
                "command goes on from there"
            ) from None


def _vae_of(path: Path) -> str | None:
    try:
        metadata = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return str(metadata["attributes"]["vae"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError):
        raise DataError(f"{path}: not latents of glfa_jax; remove it") from None
