"""Batches that show more of the stimuli: rows that hold a different clip of each subject."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray


class Row(NamedTuple):
    """One row of a batch: window i, of subject i, is of clip i, or all are of the only clip."""

    clips: Int[ndarray, " v"]
    paired: bool


class Rotation:
    """Endless rows of one clip a subject, all different; row r is a pure function of seed and r.

    An epoch shows each clip once, from one of the subjects that saw it. The subject changes with
    the epoch: after as many epochs as there are subjects, each has served every clip it saw. A
    subject that has fewer clips to serve in an epoch than another shows some a second time.
    """

    def __init__(self, present: Bool[ndarray, "clips s"], *, seed: int):
        """`present`: which subjects have which clips; each has one at least."""
        clips, self.subjects = present.shape
        self._seed, self._own = seed % 2**64, [np.flatnonzero(column) for column in present.T]
        # Whose turn it is in epoch 0, as evenly as can be; the next subject's who has the clip.
        turn = np.empty(clips, np.int64)
        turn[np.random.default_rng([self._seed, 0]).permutation(clips)] = np.arange(clips)
        order = (turn[:, None] + np.arange(self.subjects)) % self.subjects
        self._served = [
            self._serve(present, (order + epoch) % self.subjects) for epoch in range(self.subjects)
        ]
        lengths = [max(map(len, served)) for served in self._served]
        self._ends = np.cumsum(lengths)
        self.epoch_rows = tuple(lengths)
        self._table = lru_cache(maxsize=4)(self._make_table)

    def __getitem__(self, row: int) -> Int[ndarray, " s"]:
        round_, row = divmod(row, int(self._ends[-1]))
        epoch = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[epoch]) - self.epoch_rows[epoch]
        return self._table(round_ * self.subjects + epoch)[row - first]

    def _serve(
        self, present: Bool[ndarray, "clips s"], order: Int[ndarray, "clips s"]
    ) -> list[Int[ndarray, " n"]]:
        """Each subject's clips: a clip is served by the first in its order who has it."""
        clips = np.arange(len(present))
        server = order[clips, present[clips[:, None], order].argmax(axis=1)]
        seen = present.any(axis=1)
        return [np.flatnonzero(seen & (server == subject)) for subject in range(self.subjects)]

    def _make_table(self, epoch: int) -> Int[ndarray, "rows s"]:
        rng = np.random.default_rng([self._seed, 1 + epoch])
        served = self._served[epoch % self.subjects]
        table = np.full((self.epoch_rows[epoch % self.subjects], self.subjects), -1)
        for subject, clips in enumerate(served):
            table[: len(clips), subject] = rng.permutation(clips)
        for subject, clips in enumerate(served):
            waiting: list[int] = []
            for row in range(len(clips), len(table)):
                waiting = waiting or rng.permutation(self._own[subject]).tolist()
                fits = (i for i, clip in enumerate(waiting) if clip not in table[row])
                table[row, subject] = waiting.pop(next(fits, 0))
        return table


class Mixed:
    """The rows of batches of which the first `paired` are paired, the others of a rotation.

    pairs: endless clips that all subjects have.
    """

    def __init__(self, pairs: Sequence[int], rotation: Rotation, *, rows: int, paired: int):
        self._pairs, self._rotation = pairs, rotation
        self._rows, self._paired = rows, paired

    def __len__(self) -> int:
        return 2**40  # no training is as long

    def __getitem__(self, index: int) -> Row:
        batch, row = divmod(int(index), self._rows)
        if row < self._paired:
            clip = self._pairs[batch * self._paired + row]
            return Row(np.full(self._rotation.subjects, clip), True)
        row += batch * (self._rows - self._paired) - self._paired
        return Row(self._rotation[row], False)
