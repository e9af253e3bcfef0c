"""What maps of the anatomy tell of a new subject's displacement, with no fMRI of his.

    python -m benchmarks.anatomy --json benchmarks/results/anatomy.json

Simulated subjects as in configs/alignment_study.yaml, on maps of 64 x 64, whose displacement
correlates by `rho` with a fixed function of their maps of curvature and myelin. Training subjects
are aligned with each other by `warp`, as before a training; no encoder is trained. All of them
are aligned together, once for each rho, and a row with fewer learns from the first ones. New
subjects are aligned by `anatomy`, and for comparison by `warp` to 4 unlabelled minutes, to 10
training subjects who saw other clips. All numbers are of displacement relative to the training
subjects' mean:

    undone    slope of the displacement that the layer undoes over the true one: 1 takes all away
    share     of the true displacement's variance that the layer takes away; below 0 it does harm
    left out  the share of what `warp` found of training subjects that the others tell: what a user
              is told, who does not know the truth
    ideal     share, had the regression learned from the true displacement of training subjects

Means over the new subjects, with the lowest and the highest share. Worlds differ in rho alone, and
the new subjects are the same ones whoever was trained on.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from benchmarks.measuring import parser, table, write_result
from glfa_jax import alignments
from glfa_jax.alignments import Alignment, Group
from glfa_jax.alignments.anatomy import FEWEST, regression
from glfa_jax.alignments.protocol import Brains, aligned_in_parts
from glfa_jax.alignments.training_subjects import fit_training_subjects
from glfa_jax.config import Adapt, Simulation
from glfa_jax.data import flatmap, surfaces
from glfa_jax.simulate.bold import NOISE_SCALE, correlated_noise
from glfa_jax.simulate.cortex import visual_cortex
from glfa_jax.simulate.plan import Run, draw_clips, frames_of, plan_runs, signal_power
from glfa_jax.simulate.stimuli import Scene, render
from glfa_jax.simulate.streams import Stream, generator
from glfa_jax.simulate.subjects import draw_subject
from glfa_jax.simulate.tuning import canonical_tuning, features

MAP_SIZE, WINDOW, LAG = 64, 5, 4  # as in the study: volumes, and seconds, which are volumes here
RUNS_EACH = 3  # 120 clips, which are 4 minutes
STUDY = {"train_runs": 2 * RUNS_EACH, "test_runs": 1, "test_repeats": 1}
STUDY |= {"noise": 0.5, "displacement": 3.0, "mixing": 0.2}
WARPED_TO = 10  # training subjects


WARP, ANATOMY = (alignments.get(name)() for name in ("warp", "anatomy"))
Mask = Bool[ndarray, "h w"]


class Brain(NamedTuple):
    """maps: z-scores, windows of every clip. anatomy: curvature and myelin. shift: from a pixel to
    where its signal would have to be fetched, rows and columns in pixels."""

    maps: Float[ndarray, "n w h w2"]
    anatomy: Float[ndarray, "2 h w"]
    shift: Float[ndarray, "h w 2"]


class World:
    """Draws subjects, in memory; what all of them share is made once."""

    def __init__(self, seed: int):
        self.simulation = Simulation(**STUDY, seed=seed)
        self.flat = flatmap.build(surfaces.fsaverage5(), map_size=MAP_SIZE)
        self.tuning = canonical_tuning(visual_cortex(), seed=seed)
        self.smoother = self.tuning.cortex.smoother(NOISE_SCALE)
        runs = plan_runs(
            self.simulation, [self._drive(c.scene) for c in draw_clips(self.simulation)]
        )
        trained = [run for run in runs if run.split == "train"]
        self.seen_by_new, self.seen_by_trained = trained[:RUNS_EACH], trained[RUNS_EACH:]
        cortex = self.tuning.cortex
        power = signal_power(runs, self.tuning.weights(cortex.canonical, cortex.side))
        self.unit = float(np.sqrt(power.mean()))

    def _drive(self, scene: Scene) -> Float[ndarray, "f features"]:
        own = self.simulation
        options = {"size": own.size, "frame_rate": own.frame_rate}
        return features(scene, render(scene, frames=frames_of(own), **options))

    def brain(self, index: int, *, rho: float, runs: Sequence[Run]) -> Brain:
        simulation = self.simulation.model_copy(update={"anatomy": rho})
        subject = draw_subject(simulation, self.tuning, index=index)
        rng = generator(simulation.seed, Stream.NOISE, index=index)
        windows = []
        for run in runs:
            signal = run.drive @ (subject.weights / self.unit)
            noise = correlated_noise(
                rng,
                self.smoother,
                volumes=len(signal),
                repetition_time=simulation.repetition_time,
            )
            series = self.on_map(signal + subject.noise * noise)
            series -= series.mean(0)
            series /= np.where(self.mask, series.std(0, ddof=1), 1)
            first = run.onsets.astype(int) + LAG
            windows.append(series[first[:, None] + np.arange(WINDOW)])
        assert subject.anatomy is not None
        assert self.flat.pixel_mm is not None
        forward, up = subject.displacement.T
        away = self.on_map(np.stack([-up, self.tuning.cortex.side * forward]))
        return Brain(
            np.concatenate(windows).astype(np.float32),
            self.on_map(np.stack([subject.anatomy.curvature, subject.anatomy.myelin])),
            -np.moveaxis(away, 0, -1) / self.flat.pixel_mm,
        )

    @property
    def mask(self) -> Mask:
        return self.flat.mask

    def on_map(self, values: Float[ndarray, "n r"]) -> Float[ndarray, "n h w"]:
        return self.flat.to_map(np.concatenate(self.tuning.cortex.on_the_mesh(values), axis=1))


class Trained(NamedTuple):
    """Training subjects, and the parameters of `warp` that aligned them with each other."""

    brains: list[Brain]
    params: list[dict]

    def first(self, count: int) -> "Trained":
        return Trained(self.brains[:count], self.params[:count])


def train(world: World, *, rho: float, count: int) -> Trained:
    brains = [world.brain(i, rho=rho, runs=world.seen_by_trained) for i in range(count)]
    maps = np.stack([brain.maps for brain in brains])
    options = {"mask": world.mask, "paired": True, "settings": Adapt(), "seed": 0}
    return Trained(brains, fit_training_subjects(WARP, maps, **options))


def measure(trained: Trained, strangers: Sequence[Brain], *, mask: Mask) -> dict:
    """One row of the table, but for what it is a row of."""
    shifts = np.stack([shift_of(WARP, one, mask) for one in trained.params])
    truth, theirs = (
        np.stack([getattr(brain, key) for brain in trained.brains]) for key in ("shift", "anatomy")
    )
    found: dict[str, list[Gone]] = {"anatomy": [], "ideal": [], "warp": []}
    for brain in strangers:
        wanted = (brain.shift - truth.mean(0))[mask]
        for name, known in (("anatomy", shifts), ("ideal", truth)):
            told = by_anatomy(Brains(brain.anatomy, theirs, known), mask)
            found[name].append(gone((told - known.mean(0))[mask], wanted))
        if len(trained.brains) == WARPED_TO:
            told = by_warp(brain, trained, mask)
            found["warp"].append(gone((told - shifts.mean(0))[mask], wanted))
    between = gone((shifts - shifts.mean(0))[:, mask], (truth - truth.mean(0))[:, mask])
    learned = regression(Brains(strangers[0].anatomy, theirs, shifts), mask)
    return {
        "between training subjects": rounded([between]),
        "left out": round(learned.left_out, 3),
        "penalty": learned.penalty,
        **{name: rounded(each) for name, each in found.items() if each},
    }


def by_anatomy(brains: Brains, mask: Mask) -> Float[ndarray, "h w 2"]:
    """The displacement of a new subject's layer."""
    nothing = np.zeros((0, WINDOW, *mask.shape), np.float32)
    group = Group(nothing[None], mask, brains=brains)
    return shift_of(ANATOMY, ANATOMY.fit(nothing, targets=None, group=group).params, mask)


def by_warp(brain: Brain, trained: Trained, mask: Mask) -> Float[ndarray, "h w 2"]:
    layer = WARP.layer(mask.shape)
    pairs = zip(trained.params, trained.brains, strict=True)
    aligned = np.stack([aligned_in_parts(layer, params, own.maps) for params, own in pairs])
    fitted = WARP.fit(brain.maps, targets=None, group=Group(aligned, mask))
    return shift_of(WARP, fitted.params, mask)


class Gone(NamedTuple):
    """Of the true displacement; see above."""

    undone: float
    share: float


def gone(found: Float[ndarray, "*p 2"], wanted: Float[ndarray, "*p 2"]) -> Gone:
    whole = np.square(wanted).sum()
    return Gone((found * wanted).sum() / whole, 1 - np.square(found - wanted).sum() / whole)


def rounded(found: Sequence[Gone]) -> dict[str, float]:
    undone, share = np.array(found).T
    named = {"undone": undone.mean(), "share": share.mean()}
    named |= {"lowest": share.min(), "highest": share.max()}
    return {key: round(float(value), 3) for key, value in named.items()}


def shift_of(
    method: Alignment, params: dict, mask: Bool[ndarray, "h w"]
) -> Float[ndarray, "h w 2"]:
    found = method.shift(params, maps_shape=mask.shape)
    assert found is not None  # both methods fetch from one place
    return found


def cells(row: dict) -> list[object]:
    """Of the printed table; a dash where nothing was measured."""

    def of(name: str, key: str) -> object:
        return row.get(name, {}).get(key, "–")

    shares = f"{of('anatomy', 'lowest')} to {of('anatomy', 'highest')}"
    return [
        *(row["rho"], row["training subjects"], row.get("left out", "–")),
        *(of("anatomy", "undone"), of("anatomy", "share"), shares, of("ideal", "share")),
        *(of("warp", "undone"), of("warp", "share")),
    ]


HEAD = ("rho", "training subjects", "left out", "undone", "share", "lowest to highest", "ideal")
HEAD += ("warp: undone", "warp: share")


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rho", nargs="+", type=float, default=[0.0, 0.3, 0.6, 0.9])
    made.add_argument("--training", nargs="+", type=int, default=[2, 5, 10, 20])
    made.add_argument("--new", type=int, default=4, help="subjects")
    made.add_argument("--seed", type=int, default=1, help="of the study")
    return made.parse_args()


def main() -> int:
    args = parse()
    start, most, rows = time.perf_counter(), max(args.training), []
    world = World(args.seed)
    for rho in args.rho:
        trained = train(world, rho=rho, count=most)
        places = range(most, most + args.new)
        strangers = [world.brain(i, rho=rho, runs=world.seen_by_new) for i in places]
        for count in args.training:
            row: dict = {"rho": rho, "training subjects": count}
            if count >= FEWEST:  # with fewer the method says that it needs more
                row |= measure(trained.first(count), strangers, mask=world.mask)
            rows.append(row)
            print(f"{time.perf_counter() - start:.0f} s: {row}", flush=True)
    print(table(HEAD, map(cells, rows)))
    result = {
        "study": {**STUDY, "seed": args.seed, "map_size": MAP_SIZE, "new subjects": args.new},
        "rows": rows,
        "seconds": round(time.perf_counter() - start),
    }
    write_result(args.json, result, packages=("jax", "jaxlib", "numpy"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
