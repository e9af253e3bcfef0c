"""What a trained decoder keeps of the data it was trained on, so that it decodes without them."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from glfa_jax import config, records
from glfa_jax.convert.directory import DirectoryError, read_tensors, write_tensors
from glfa_jax.data.drawing import Drawing
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.trained import drawn, group


@dataclass(frozen=True)
class Timing:
    """Of the maps and clips, in seconds; identity: digest of the settings and files of the store.

    lag_seconds: from a clip's start to its window's. clip_seconds: duration of a clip.
    """

    identity: records.Text
    repetition_time: float
    lag_seconds: float
    clip_seconds: float


def clips_filling(minutes: float, *, seconds: float, clips: int, key: str, these: str) -> int:
    """How many clips fill the minutes with video.

    seconds: of one clip. clips: how many there are, which `these` says in words. key: what messages
    call the minutes. Raises InputError for less than a clip and for more than there are.
    """
    most = clips * seconds / 60
    if not (math.isfinite(minutes) and seconds <= minutes * 60 and minutes <= most + 1e-9):
        raise InputError(
            f"{key}: {minutes:g}, must be from {seconds / 60:.2g} (one clip of {seconds:g} s) to "
            f"{most:g}, {these}"
        )
    return int(minutes * 60 / seconds + 1e-9)  # rounding must not cost the last clip


FOLDER = "trained_on"  # beside a stage's model, and in an export


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """average: the training subjects' mean window in the common space, which samples are guided
    away from. mask: true where the flat maps show cortex. drawing: how scans become such maps;
    None where the surfaces were not there, or by an earlier version. connectivity: what new maps
    are aligned to without labels; in exports alone, made where the store was there.
    """

    timing: Timing
    average: Float[np.ndarray, "w height width"]
    mask: Bool[np.ndarray, "height width"]
    drawing: Drawing | None = None
    connectivity: Float[np.ndarray, "k height width"] | None = None

    @classmethod
    def of(
        cls,
        store: Store,
        *,
        average: Float[np.ndarray, "w height width"],
        drawing: Drawing | None = None,
    ) -> "TrainedOn":
        about = store.attributes
        timing = Timing(
            identity=about.identity,
            repetition_time=about.repetition_time,
            lag_seconds=about.lag_seconds,
            clip_seconds=about.clip_seconds,
        )
        return cls(timing, np.asarray(average, np.float32), store.mask, drawing)

    def save(self, folder: Path) -> None:
        """Safetensors, and the timing in config.json."""
        write_tensors(
            folder,
            {"average": self.average, "mask": self.mask.astype(np.uint8)},
            config=asdict(self.timing),
            filename="model.safetensors",
        )
        if self.drawing is not None:
            drawn.save(folder / drawn.FOLDER, self.drawing)
        if self.connectivity is not None:
            group.save(folder / group.FOLDER, self.connectivity, mask=self.mask)

    def with_drawing(self, data: config.Data) -> "TrainedOn":
        """With how scans become maps, made anew where it was not kept; data: of the configuration.

        Raises DataError where the surfaces are not there.
        """
        if self.drawing is not None:
            return self
        return replace(self, drawing=drawn.anew(data, mask=self.mask))

    @classmethod
    def load(cls, folder: Path) -> "TrainedOn":
        """Raises DirectoryError naming the file and what is wrong with it."""
        timing = records.read(Timing, folder / "config.json", error=DirectoryError)
        tensors = read_tensors(folder)
        if tensors.keys() != {"average", "mask"}:
            raise DirectoryError(f"{folder}: holds {sorted(tensors)}, must hold average and mask")
        average, mask = tensors["average"], tensors["mask"]
        if average.ndim != 3 or average.shape[1:] != mask.shape:
            raise DirectoryError(
                f"{folder}: the average is {average.shape} and the mask {mask.shape}, must be "
                "(window, height, width) and (height, width)"
            )
        mask = np.array(mask, bool)
        drawing = drawn.load(folder / drawn.FOLDER, mask=mask)
        connectivity = group.load(folder / group.FOLDER, mask=mask)
        return cls(timing, np.array(average, np.float32), mask, drawing, connectivity)
