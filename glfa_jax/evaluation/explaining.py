"""Measures contributions batch after batch; what is measured already is not measured again.

First the maps of every clip, then, with the orders that they give, how the score falls while cortex
is deleted. A clip's order comes from the maps of the other half of the clips, every second one, so
that no clip is tested by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.evaluation.measuring import Measurer
from glfa_jax.explain import faithful, measure
from glfa_jax.explain.areas import Areas
from glfa_jax.explain.scores import CONDITION, EMBEDDED, VIDEO
from glfa_jax.files import read_arrays, savez_atomically
from glfa_jax.starting import typed
from glfa_jax.training.step import matmul_precision

# By which maps, from which end: the orders in which a clip's areas are deleted besides at random.
BY = ("gradient", "occlusion")
ORDERS = tuple((by, end) for by in BY for end in ("highest", "lowest"))
_DAMAGED = f"remove it and run {typed('eval.explain')} again"


def folder(settings: config.Config) -> Path:
    return system.results_folder(settings) / "explain"


def chosen_scores(settings: config.Config) -> tuple[str, ...]:
    """`explain.scores`, or all that the run has but `video`.

    Raises InputError for one that needs a contrastive head where none was trained.
    """
    headed = settings.headed
    if settings.explain.scores is None:
        return (CONDITION, *EMBEDDED) if headed else (CONDITION,)
    for name in settings.explain.scores:
        if name in EMBEDDED and not headed:
            raise InputError(
                f"explain.scores: {name} needs the contrastive head of stage 1, which this run was "
                f"trained without; must be {CONDITION} or {VIDEO}"
            )
    return settings.explain.scores


@dataclass(frozen=True)
class Explaining:
    """names: of scores. areas: of the decoded store's cortex."""

    test: HeldOut
    names: tuple[str, ...]
    areas: Areas

    @property
    def settings(self) -> config.Config:
        return self.test.settings

    def run(self, *, beginning: Callable[[], None]) -> None:
        """Measures every part that is missing; `beginning` is called when nothing is rejected any
        more and something is to be measured."""
        wanted = [
            (subject, clips)
            for subject in self.settings.protocol.test_subjects
            for clips in self.test.batches(subject)
        ]
        missing = {
            kind: [one for one in wanted if not self._part(kind, *one).exists()]
            for kind in ("maps", "deletion")
        }
        if not any(missing.values()):
            print("explain: everything is measured already", flush=True)
            return
        orders = len(self.names) * len(ORDERS) + self.settings.explain.orders
        passes = {
            "maps": len(self.areas.names),
            "deletion": orders * (self.settings.explain.steps - 1),
        }
        total = sum(passes[kind] * len(parts) for kind, parts in missing.items())
        one = Measurer(self.test, self.names, cortex=self.areas.number >= 0)
        beginning()
        bar = tqdm(total=total, desc="explain", unit="pass", mininterval=5)
        with matmul_precision(self.settings.hardware), bar as progress:
            # Read once for all batches of a subject, when all of his maps are there.
            deletion = partial(self._deletion, orders_of=cache(self._orders))
            for kind, make in (("maps", self._maps), ("deletion", deletion)):
                for subject, clips in missing[kind]:
                    path = self._part(kind, subject, clips)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    arrays = make(one, subject, clips, progress.update)
                    savez_atomically(path, clip=np.array(clips), **arrays)

    def maps(self, subject: str) -> dict[str, np.ndarray]:
        """full (clips, k); gradient and occlusion (clips, k, areas); of every pixel, over all clips
        of the subject, gradient_mean and gradient_std (k, h, w)."""
        parts, mean, square = [], 0.0, 0.0
        for clips in self.test.batches(subject):
            part = self._read("maps", subject, clips)
            mean, square = mean + part.pop("sum"), square + part.pop("square")  # large
            parts.append(part)
        found = {
            key: np.concatenate([part[key] for part in parts])
            for key in ("full", "gradient", "occlusion")
        }
        count = len(found["full"])
        mean, square = mean / count, square / count
        variance = np.maximum(square - np.square(mean), 0) * count / max(count - 1, 1)
        return found | {"gradient_mean": mean, "gradient_std": np.sqrt(variance)}

    def deletion(self, subject: str) -> dict[str, np.ndarray]:
        """Scores and shares of the cortex that is gone: own, own_shares (clips, k, orders, steps +
        1), in the sequence of `ORDERS`; random (clips, k, orders, steps + 1) and random_shares
        (orders, steps + 1)."""
        parts = [self._read("deletion", subject, clips) for clips in self.test.batches(subject)]
        keys = ("own", "own_shares", "random")
        found = {key: np.concatenate([part[key] for part in parts]) for key in keys}
        return found | {"random_shares": self._shares(self._random)}

    # --- one batch ---

    def _maps(
        self, one: Measurer, subject: str, clips: list[int], update: Callable[[], object]
    ) -> dict[str, np.ndarray]:
        ready = one.ready(subject, clips)
        found = measure.slopes(*ready, average=one.average)
        occlusion = measure.by_area(
            *ready, average=one.average, areas=self.areas.number, progress=update
        )
        count = len(clips)
        gradient = found.gradient[:count].astype(np.float64)
        return {
            "full": found.full[:count],
            "gradient": self.areas.sums(gradient),
            "occlusion": occlusion[:count],
            "sum": gradient.sum(0),
            "square": np.square(gradient).sum(0),
        }

    def _deletion(
        self,
        one: Measurer,
        subject: str,
        clips: list[int],
        update: Callable[[], object],
        *,
        orders_of: Callable[[str], np.ndarray],
    ) -> dict[str, np.ndarray]:
        own = orders_of(subject)[[self.test.clips(subject).index(clip) for clip in clips]]
        count, names, orders = own.shape[:3]
        ready = one.ready(subject, clips)
        where: Any = {"average": one.average, "areas": self.areas.number}
        ends = measure.ends(*ready, **where)

        def scores(rows: np.ndarray) -> np.ndarray:
            """(b, k, steps + 1), of an order for each clip."""
            return measure.deleted(
                *ready,
                **where,
                between=ends,
                orders=np.resize(rows, (len(ready.maps), rows.shape[1])),
                steps=self.settings.explain.steps,
                progress=update,
            )[:count]

        curves = [
            [scores(own[:, name, order])[:, name] for order in range(orders)]
            for name in range(names)
        ]
        random = [scores(np.tile(order, (count, 1))) for order in self._random]
        return {
            "own": np.moveaxis(np.array(curves), 2, 0),
            "own_shares": self._shares(own),
            "random": np.stack(random, axis=2),
        }

    def _orders(self, subject: str) -> np.ndarray:
        """(clips, k, orders, areas): what the other half of the clips says of each clip."""
        maps = self.maps(subject)
        clips = len(maps["full"])
        found = np.empty((clips, len(self.names), len(ORDERS), len(self.areas.names)), int)
        for half in (0, 1):
            for i, (by, end) in enumerate(ORDERS):
                mean = maps[by][1 - half :: 2].mean(0)
                order = faithful.order_of(mean, pixels=self.areas.pixels)
                found[half::2, :, i] = order if end == "highest" else order[..., ::-1]
        return found

    @cached_property
    def _random(self) -> np.ndarray:
        return faithful.random_orders(
            len(self.areas.names), count=self.settings.explain.orders, seed=self.settings.seed
        )

    def _shares(self, orders: np.ndarray) -> np.ndarray:
        return faithful.shares_of(
            orders, pixels=self.areas.pixels, steps=self.settings.explain.steps
        )

    # --- files ---

    def _part(self, kind: str, subject: str, clips: list[int]) -> Path:
        return folder(self.settings) / "parts" / subject / f"{kind}-{clips[0]:05d}.npz"

    def _read(self, kind: str, subject: str, clips: list[int]) -> dict[str, np.ndarray]:
        path = self._part(kind, subject, clips)
        arrays = read_arrays(path, "part of an explanation", remedy=_DAMAGED)
        count, names, areas = len(clips), len(self.names), len(self.areas.names)
        steps, pixels = self.settings.explain.steps + 1, self.areas.number.shape
        if kind == "maps":
            shapes = {"full": (count, names), "sum": (names, *pixels), "square": (names, *pixels)}
            shapes |= dict.fromkeys(BY, (count, names, areas))
        else:
            own = (count, names, len(ORDERS), steps)
            shapes = {"own": own, "own_shares": own}
            shapes["random"] = (count, names, self.settings.explain.orders, steps)
        held = {key: array.shape for key, array in arrays.items() if key != "clip"}
        if held != shapes or arrays.get("clip", np.zeros(0)).tolist() != clips:
            raise InputError(f"{path}: is no part of this explanation; {_DAMAGED}")
        return arrays
