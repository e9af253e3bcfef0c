"""All that a trained decoder consists of; where it comes from, and how it is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glfa_jax import config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.trained.data import TrainedOn
from glfa_jax.trained.model import Model


@dataclass(frozen=True, eq=False)
class Trained:
    """settings: the configuration that it was trained with.

    model: encoder and generator. trained_on: what is kept of the training data. fitted: encoders
    of subjects to whom it was adapted, with their layers; all else is mostly the model's own.
    metrics: lines of the run's metrics.json, where it was scored.
    """

    settings: config.Config
    model: Model = field(repr=False)
    trained_on: TrainedOn = field(repr=False)
    fitted: Mapping[str, Pretrained] = field(default_factory=dict, repr=False)
    metrics: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def maps_shape(self) -> tuple[int, int, int]:
        """Window, height and width of the maps of one clip."""
        data = self.settings.data
        return data.window, data.map_size, data.map_size

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of a decoded clip."""
        data = self.settings.data
        return data.frames, *data.resolution, 3
