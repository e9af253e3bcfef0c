"""Which clips there are, and who sees which of them when.

Clips are numbered: those for training that all subjects see, test clips, then those of subjects who
see clips of their own. The runs of all subjects have the same order and timing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from glfa_jax import config
from glfa_jax.simulate.bold import convolution
from glfa_jax.simulate.stimuli import Scene, sample_scene
from glfa_jax.simulate.streams import Stream, generator

LEAD, TAIL = 4.0, 10.0  # seconds of blank before the first and after the last clip of a run
BLOCK, BLOCKS = 64, 8  # scenes in a block of the balanced design, and blocks until it repeats


@dataclass(frozen=True)
class Clip:
    """file: name of the video in the folder of stimuli."""

    file: str
    scene: Scene


@dataclass(frozen=True, eq=False)
class Run:
    """n clips in t volumes; onsets in seconds.

    drive: what the clips of the run drive, convolved with the haemodynamic response.
    """

    name: str
    split: str
    repeat: int
    clips: Int[ndarray, " n"]
    onsets: Float[ndarray, " n"]
    drive: Float[ndarray, "t features"]


def frames_of(simulation: config.Simulation) -> int:
    """Video frames in a clip."""
    return round(simulation.clip_seconds * simulation.frame_rate)


def draw_clips(simulation: config.Simulation) -> list[Clip]:
    """All clips of the study, by their numbers."""
    train, test = _counts(simulation)
    rng = generator(simulation.seed, Stream.CLIPS)
    # Test clips start a new block of the balanced design: other combinations than in training.
    first_test = -(-train // BLOCK) * BLOCK
    clips = [Clip(f"train_{i:04d}.mp4", sample_scene(rng, i)) for i in range(train)]
    clips += [Clip(f"test_{i:04d}.mp4", sample_scene(rng, first_test + i)) for i in range(test)]
    design = _own_design(simulation)
    for name in simulation.own_clips:
        rng = generator(simulation.seed, Stream.OWN_CLIPS, index=simulation.names.index(name))
        clips += [
            Clip(f"sub-{name}_train_{i:04d}.mp4", sample_scene(rng, at))
            for i, at in enumerate(design)
        ]
    return clips


def seen_by(subject: str | None, *, simulation: config.Simulation) -> Int[ndarray, " n"]:
    """Number of the clip that the subject sees for each training and test clip of the others.

    What is shared are the same numbers; a run shares as much as any other.
    """
    train, test = _counts(simulation)
    seen = np.arange(train + test)
    if subject in simulation.own_clips:
        own = _is_own(simulation)
        first = train + test + simulation.own_clips.index(subject) * own.sum()
        seen[:train][own] = first + np.arange(own.sum())
    return seen


def plan_runs(
    simulation: config.Simulation,
    drives: Sequence[Float[ndarray, "f features"]],
    *,
    subject: str | None = None,
) -> list[Run]:
    """Which clips come when: every repeat of a test run shows the same clips in a new order.

    drives: what every clip drives in the cortex, by number. subject: without, one who sees no clips
    of their own.
    """
    seen = seen_by(subject, simulation=simulation)
    each = simulation.clips_per_run
    blocks = [("train", 1, number) for number in range(simulation.train_runs)]
    for number in range(simulation.test_runs):
        for repeat in range(1, simulation.test_repeats + 1):
            blocks.append(("test", repeat, simulation.train_runs + number))
    rng = generator(simulation.seed, Stream.ORDER)
    onsets = LEAD + (simulation.clip_seconds + simulation.gap_seconds) * np.arange(each)
    end = onsets[-1] + simulation.clip_seconds + TAIL
    volumes = np.arange(np.ceil(end / simulation.repetition_time)) * simulation.repetition_time
    step = 1 / simulation.frame_rate
    frames = (onsets[:, None] + step * np.arange(frames_of(simulation))).ravel()
    response = convolution(frames, volumes, duration=step)
    runs = []
    for number, (split, repeat, block) in enumerate(blocks, start=1):
        clips = seen[block * each + rng.permutation(each)]
        drive = response @ np.concatenate([drives[clip] for clip in clips])
        runs.append(Run(f"{number:02d}", split, repeat, clips, onsets, drive))
    return runs


def signal_power(
    runs: Sequence[Run], weights: Float[ndarray, "features r"]
) -> Float[ndarray, " r"]:
    """Variance over time of the noiseless signal in a training run, mean over runs."""
    trained = (run.drive for run in runs if run.split == "train")
    return np.mean([np.var(drive @ weights, axis=0) for drive in trained], axis=0)


def _counts(simulation: config.Simulation) -> tuple[int, int]:
    """Training and test clips that a subject sees."""
    each = simulation.clips_per_run
    return simulation.train_runs * each, simulation.test_runs * each


def _is_own(simulation: config.Simulation) -> ndarray:
    """Which training clips are others for subjects with clips of their own."""
    each = simulation.clips_per_run
    number = np.arange(_counts(simulation)[0])
    return number % each >= round(simulation.shared_share * each)


def _own_design(simulation: config.Simulation) -> list[int]:
    """Places in the balanced design of the clips that only one subject sees.

    It goes on where the training clips end and leaves out the blocks of test clips, whose
    combinations nobody sees in training. (Only where those fill the design, none can be left out.)
    """
    train, test = _counts(simulation)
    first = -(-train // BLOCK)
    tested = {(first + block) % BLOCKS for block in range(-(-test // BLOCK))}
    blocks = [block % BLOCKS for block in range(first, first + BLOCKS)]
    free = [block for block in blocks if block not in tested] or blocks
    return [
        BLOCK * free[place // BLOCK % len(free)] + place % BLOCK
        for place in range(_is_own(simulation).sum())
    ]
