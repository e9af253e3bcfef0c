"""What a scanner and a restless head add to BOLD, and the table of confounds that goes with it.

A subject's head wanders slowly and jerks now and then. Position and its changes go into the signal
linearly, so that regressing them out helps; a jerk also spoils the volumes around it, which only
censoring or despiking undoes. Drift is slower than 0.01 Hz.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.simulate.cortex import Cortex, smooth_field
from glfa_jax.simulate.streams import Stream, generator
from glfa_jax.simulate.writing import write_table

PARAMETERS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
HEAD = 50.0  # mm, radius at which framewise displacement counts rotations (Power 2012)
WANDER = 0.02  # mm from one second to the next, standard deviation
JERK = 1.6  # mm, mean size; half of it is taken back in the next volume
SPIKE = 5.0  # standard deviations of the signal, of a jerk's volume
AFTER = 0.4  # of that in the volume after it
SLOWEST = 0.008  # Hz, of drift
COMPONENTS = 128.0  # seconds, period of fMRIPrep's cosines
SCALE = 30.0  # mm, correlation length of all maps of artefacts


def asked(simulation: config.Simulation) -> bool:
    return bool(simulation.drift or simulation.motion or simulation.spikes)


@dataclass(frozen=True, eq=False)
class Artefacts:
    """Of one run of t volumes and r vertices.

    added: in standard deviations of the signal. position: mm and radians, in the order of
    PARAMETERS.
    """

    added: Float[ndarray, "t r"]
    position: Float[ndarray, "t 6"]


class Restless:
    """One subject's head and scanner; runs in order."""

    def __init__(self, simulation: config.Simulation, cortex: Cortex, *, index: int):
        self._simulation = simulation
        self._rng = generator(simulation.seed, Stream.ARTEFACTS, index=index)
        # What each parameter, and each change of one, does to the signal is the subject's own.
        count = 2 * len(PARAMETERS)
        self._moves = self._fields(cortex, count)
        self._jerks = 1 + 0.3 * self._fields(cortex, 1)
        self._cortex = cortex

    def run(self, volumes: int) -> Artefacts:
        """All is drawn whatever is asked for, so that one option leaves the others as they are."""
        simulation, rng = self._simulation, self._rng
        seconds = simulation.repetition_time
        jerked = rng.random(volumes) < simulation.spikes
        jerked[0] = False
        position = self._position(jerked, seconds)
        steps = np.diff(position, axis=0, prepend=position[:1])
        moved = _sized(_unit(np.concatenate([position, steps], axis=1)) @ self._moves)
        spoilt = np.where(jerked, rng.exponential(SPIKE, volumes), 0) * rng.choice([-1, 1], volumes)
        spoilt[1:] += AFTER * spoilt[:-1] * ~jerked[1:]
        waves = _cosines(volumes, max(1, int(2 * volumes * seconds * SLOWEST)))
        size = 1 / np.arange(1, waves.shape[1] + 1)
        maps = self._fields(self._cortex, waves.shape[1]) + rng.standard_normal((len(size), 1))
        drift = _sized(waves @ (size[:, None] * maps))
        added = simulation.drift * drift + simulation.motion * moved
        return Artefacts(added + spoilt[:, None] * self._jerks, position)

    def write_confounds(
        self, path: Path, artefacts: Artefacts, bold: Float[ndarray, "t r"]
    ) -> None:
        """The columns of fMRIPrep's table that its usual strategies take."""
        volumes, position, rng = len(bold), artefacts.position, self._rng
        found: dict[str, ndarray] = {}
        tissue = artefacts.added.mean(axis=1)
        for name, share in (("csf", 0.5), ("white_matter", 0.3)):
            level = share * tissue + 0.1 * rng.standard_normal(volumes)
            found |= _expanded(name, 1000 + 10 * level)
        found |= _expanded("global_signal", bold.mean(axis=1))
        for name, values in zip(PARAMETERS, position.T, strict=True):
            found |= _expanded(name, values)
        steps = np.abs(np.diff(position, axis=0))
        moved = steps[:, :3].sum(axis=1) + HEAD * steps[:, 3:].sum(axis=1)
        dvars = np.sqrt(np.mean(np.diff(bold, axis=0) ** 2, axis=1))
        found["framewise_displacement"] = np.r_[np.nan, moved]
        found["dvars"] = np.r_[np.nan, dvars]
        found["std_dvars"] = np.r_[np.nan, dvars / np.median(dvars)]
        count = int(2 * volumes * self._simulation.repetition_time / COMPONENTS)
        for number, wave in enumerate(_cosines(volumes, count).T):
            found[f"cosine{number:02d}"] = wave
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.stack(list(found.values()), axis=1)
        write_table(path, [dict(zip(found, map(_text, row), strict=True)) for row in rows])

    def _position(self, jerked: Bool[ndarray, " t"], seconds: float) -> Float[ndarray, "t 6"]:
        rng, count = self._rng, len(PARAMETERS)
        walk = WANDER * np.sqrt(seconds) * rng.standard_normal((len(jerked), count))
        jerks = rng.exponential(JERK / count, walk.shape) * rng.choice([-1, 1], walk.shape)
        steps = walk + jerked[:, None] * jerks
        steps[1:] -= 0.5 * jerked[:-1, None] * jerks[:-1]
        position = np.cumsum(steps, axis=0)
        position[:, 3:] /= HEAD
        return position

    def _fields(self, cortex: Cortex, count: int) -> Float[ndarray, "k r"]:
        return smooth_field(self._rng, count=count, scale=SCALE)(cortex.canonical).T


def _expanded(name: str, values: Float[ndarray, " t"]) -> dict[str, ndarray]:
    """With derivatives and squares, under fMRIPrep's names."""
    steps = np.r_[np.nan, np.diff(values)]
    return {
        name: values,
        f"{name}_derivative1": steps,
        f"{name}_power2": values**2,
        f"{name}_derivative1_power2": steps**2,
    }


def _text(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.8g}"


def _cosines(volumes: int, count: int) -> Float[ndarray, "t k"]:
    steps = np.arange(1, count + 1)
    return np.sqrt(2) * np.cos(np.pi / volumes * (np.arange(volumes)[:, None] + 0.5) * steps)


def _sized(values: Float[ndarray, "t r"]) -> Float[ndarray, "t r"]:
    """Of root mean square 1."""
    return values / np.sqrt(np.mean(values**2))


def _unit(columns: Float[ndarray, "t k"]) -> Float[ndarray, "t k"]:
    columns = columns - columns.mean(axis=0)
    return columns / columns.std(axis=0)
