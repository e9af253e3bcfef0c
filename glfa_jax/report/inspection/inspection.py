"""What a prepared store says about itself when it is read through once, shard by shard."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from tqdm import tqdm

from glfa_jax.data import DataError
from glfa_jax.data.correlation import RunningCorrelation
from glfa_jax.data.layouts import SPLITS, Split
from glfa_jax.data.store import SHARD, Store


@dataclass(frozen=True, eq=False)
class Signal:
    """The samples of one subject.

    present, total: samples of each split. moving: pixels that differ from zero somewhere.
    peak: largest |z|.
    """

    present: dict[Split, int]
    total: dict[Split, int]
    moving: Bool[ndarray, "h w"]
    peak: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Two subjects at the same test samples.

    correlation: Pearson, of every pixel over all volumes of the `samples` that both have; NaN off
        the mask and where a pixel does not vary.
    mean: of the correlation over pixels; NaN where there is none.
    """

    subjects: tuple[str, str]
    correlation: Float[ndarray, "h w"]
    mean: float
    samples: int


@dataclass(frozen=True, eq=False)
class Inspection:
    signals: dict[str, Signal]
    pairs: list[Pair]


def inspect(store: Store, *, progress: bool) -> Inspection:
    """Reads every map once, in blocks that hold one shard's worth; raises DataError."""
    mask, subjects = store.mask, store.attributes.subjects
    if not mask.any():
        raise DataError(f"{store.path}: the mask of the flat map is empty")
    peaks = dict.fromkeys(subjects, 0.0)
    moving = {subject: np.zeros(mask.sum(), bool) for subject in subjects}
    sums = {
        pair: RunningCorrelation(int(mask.sum())) for pair in combinations(range(len(subjects)), 2)
    }
    shared = dict.fromkeys(sums, 0)  # samples that both of a pair have
    present = {split: store.present(split, subjects=subjects) for split in SPLITS}
    counts: dict[Split, int] = {split: store.num_clips(split) for split in SPLITS}
    size = max(1, SHARD // len(subjects))
    with tqdm(total=sum(counts.values()), disable=not progress, unit="sample", desc="look") as bar:
        for split in SPLITS:
            for start in range(0, counts[split], size):
                block = np.arange(start, min(start + size, counts[split]))
                there = present[split][block]
                maps = store.fmri(split, block, subjects=subjects)
                maps = maps[..., mask]  # b s w p, float16
                values = [maps[there[:, i], i].astype(np.float32) for i in range(len(subjects))]
                for subject, value in zip(subjects, values, strict=True):
                    peaks[subject] = max(peaks[subject], float(np.abs(value).max(initial=0)))
                    moving[subject] |= value.any(axis=(0, 1))
                if split == "test":
                    for (i, j), each in sums.items():
                        both = there[:, i] & there[:, j]
                        shared[i, j] += int(both.sum())
                        each.add(values[i][both[there[:, i]]], values[j][both[there[:, j]]])
                bar.update(len(block))
    signals = {
        subject: Signal(
            present={split: int(present[split][:, i].sum()) for split in SPLITS},
            total=counts,
            moving=_draw(moving[subject], mask, empty=False),
            peak=peaks[subject],
        )
        for i, subject in enumerate(subjects)
    }
    pairs = []
    for (i, j), each in sums.items():
        correlation = each.result()
        known = correlation[np.isfinite(correlation)]
        pairs.append(
            Pair(
                subjects=(subjects[i], subjects[j]),
                correlation=_draw(correlation, mask, empty=np.nan),
                mean=float(known.mean()) if known.size else float("nan"),
                samples=shared[i, j],
            )
        )
    return Inspection(signals, pairs)


def spread_evenly(store: Store, *, clips: int) -> list[int]:
    """Positions of test samples spread over the test split, of those most subjects have."""
    present = store.present("test", subjects=store.attributes.subjects).sum(axis=1)
    best = np.flatnonzero(present == present.max(initial=0))
    picks = np.linspace(0, len(best) - 1, min(clips, len(best))).round().astype(int)
    return [int(best[pick]) for pick in picks]


def _draw(values: ndarray, mask: Bool[ndarray, "h w"], *, empty: float) -> ndarray:
    image = np.full(mask.shape, empty, values.dtype)
    image[mask] = values
    return image
