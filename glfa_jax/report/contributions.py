"""Which cortex decides: contribution maps, tables of areas and the test of the maps, on a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from glfa_jax.files import read_arrays, read_object, reading, write_atomically
from glfa_jax.report import html
from glfa_jax.report.html import Markup
from glfa_jax.report.inputs import ReportError
from glfa_jax.report.pictures import COLD_HOT, Scale, map_row
from glfa_jax.report.svg import ACCENT, EXTRA, INK, MUTED, RULE, inline
from glfa_jax.report.tables import Table, cells
from glfa_jax.report.words import count_text, subjects_text

FORMAT, NUMBERS, ARRAYS, PAGE = 1, "contributions.json", "contributions.npz", "index.html"
# How contributions are found, in words.
BY = {"occlusion": "areas replaced by the average", "gradient": "gradient × input"}
SCORES = {
    "condition": "What the condition is made of",
    "image": "Similarity to the clip's own frames",
    "caption": "Similarity to the clip's own caption",
    "video": "Denoising the true clip",
}
TOP = 12  # areas of a table that are shown at once
KIND = "contributions as eval.explain writes them"


@dataclass(frozen=True)
class Contributions:
    """What eval.explain left: content of contributions.json, and maps by (subject, score, by), the
    score per 1 % of the cortex."""

    about: dict[str, Any]
    mask: np.ndarray
    maps: dict[tuple[str, str, str], np.ndarray]

    @property
    def results(self) -> list[dict[str, Any]]:
        return self.about["results"]

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(one["subject"] for one in self.results))

    @property
    def scores(self) -> list[str]:
        return list(dict.fromkeys(one["score"] for one in self.results))


def read(folder: Path) -> Contributions:
    """Raises ReportError for files that do not hold what they should."""
    numbers, arrays = Path(folder) / NUMBERS, Path(folder) / ARRAYS
    about = read_object(numbers, error=ReportError)
    if about.get("format") != FORMAT:
        raise ReportError(f"{numbers}: format {about.get('format')!r}, this version reads {FORMAT}")
    held = read_arrays(arrays, KIND, error=ReportError)
    with reading(arrays, KIND, error=ReportError):
        mask, number = held["mask"].astype(bool), held["areas"]
        one_percent = mask.sum() / 100  # pixels
        pixels = np.bincount(number[mask])
        densities = held["occlusion"] / pixels * one_percent
        drawn = {
            "occlusion": np.where(mask, densities[..., number], 0),
            "gradient": held["gradient"] * one_percent,
        }
        maps = {
            (str(subject), str(score), by): drawn[by][s, k]
            for by in BY
            for s, subject in enumerate(held["subjects"])
            for k, score in enumerate(held["scores"])
        }
    found = Contributions(about, mask, maps)
    with reading(numbers, KIND, error=ReportError):
        known = {(one["subject"], one["score"], by) for one in found.results for by in BY}
        if known != maps.keys():
            raise ReportError(f"{numbers}: is of other subjects or scores than {arrays.name}")
        for one in found.results:
            _check(one, areas=len(pixels))
    return found


def _check(one: dict[str, Any], *, areas: int) -> None:
    """Raises whatever it stumbles over where a result lacks what a page shows."""
    points = len(one["shares"])
    lists = [(one["random"][key], points) for key in ("scores", "low", "high")]
    for by in BY:
        lists += [(one[by][key], areas) for key in ("mean", "low", "high")]
        lists += [(one[by]["deletion"][end], points) for end in ("highest", "lowest")]
    if any(np.array(values, float).shape != (length,) for values, length in lists):
        raise ValueError("its lists are not of one length")
    for words in (sentence, _test):
        words(one)


def write(folder: Path) -> Path:
    """Writes FOLDER/index.html and returns its path; raises ReportError."""
    found = read(folder)
    about, shown = found.about, section(found)
    page = html.render(
        "contributions.html",
        title=f"Which cortex decides: {about['run']}",
        summary=" ".join(sentence(one) for one in found.results if one["score"] == found.scores[0]),
        facts=[
            ("Method", about["method"]),
            ("Protocol", about["protocol"]),
            ("Explained", subjects_text(found.subjects)),
            ("Areas", f"{len(about['areas']['names'])}, {about['areas']['source']}"),
        ],
        it=shown,
    )
    target = Path(folder) / PAGE
    write_atomically(target, page)
    return target


def section(found: Contributions) -> list[dict[str, Any]]:
    """Of every score a name, rows of maps, and of each subject a sentence, a table of all areas
    and one of the first, a curve and what it says."""
    areas = found.about["areas"]
    shown = []
    for score in found.scores:
        own = [one for one in found.results if one["score"] == score]
        rows = []
        for by, words in BY.items():
            maps = [found.maps[subject, score, by] for subject in found.subjects]
            rows.append(
                map_row(
                    words[0].upper() + words[1:],
                    maps,
                    [f"subject {subject}" for subject in found.subjects],
                    mask=found.mask,
                    scale=_around_zero(maps, found.mask),
                    unit="per 1 % of cortex",
                    words=f"Flat map of visual cortex, {{title}}, {score}: {words}",
                )
            )
        subjects = [
            {
                "name": f"Subject {one['subject']}",
                "words": sentence(one),
                "first": _table(one, areas, most=TOP),
                "whole": _table(one, areas, most=None) if len(areas["names"]) > TOP else None,
                "curve": _curve(one),
                "test": _test(one),
            }
            for one in own
        ]
        shown.append(
            {"id": score, "name": SCORES.get(score, score), "rows": rows, "subjects": subjects}
        )
    return shown


def sentence(one: dict[str, Any]) -> str:
    """What was found for a subject and a score, and whether it can be trusted."""
    full, deletion = one["full"], one["occlusion"]["deletion"]
    text = (
        f"Subject {one['subject']}, {one['score']}: {_number(full['mean'])} with the whole cortex "
        f"(95 % {_number(full['low'])} to {_number(full['high'])} over "
        f"{count_text(one['clips'], 'clip')}), {_number(_rounded(one))} with none of it."
    )
    if not full["low"] > one["nothing"]["mean"]:
        return f"{text} That is no clear difference, so there is nothing that maps could explain."
    held = [words for by, words in BY.items() if one[by]["deletion"]["faithful"]]
    if len(held) == len(BY):
        return f"{text} Both maps pass the test by deletion (p = {_number(deletion['p_value'])})."
    if held:
        return f"{text} Only the map by {held[0]} passes the test by deletion."
    return f"{text} Neither map passes the test by deletion: do not read them."


def _around_zero(maps: list[np.ndarray], mask: np.ndarray) -> Scale:
    """The 99th percentile of all values; contributions may be of any size."""
    limit = float(np.percentile(np.abs(np.stack(maps)[:, mask]), 99))
    limit = limit if limit > 0 else 1.0
    return Scale(-limit, limit, COLD_HOT)


def _table(one: dict[str, Any], areas: dict[str, Any], *, most: int | None) -> Table:
    lost, shares = one["occlusion"]["mean"], areas["shares"]
    order = np.argsort(-np.array(lost), kind="stable")[:most]
    rows = tuple(
        cells(
            [
                areas["names"][i],
                f"{100 * shares[i]:.1f}",
                *(_with_interval(one[by], int(i)) for by in BY),
                _number(lost[i] / (100 * shares[i])),
            ]
        )
        for i in order
    )
    return Table(
        title=f"Areas of subject {one['subject']}, {one['score']}",
        labels=1,
        head=cells(["area", "% of cortex", *BY.values(), "replaced, per 1 % of cortex"]),
        rows=rows,
        caption="" if most is None else f"The {len(rows)} areas without which most is lost",
    )


def _with_interval(found: dict[str, Any], area: int) -> str:
    mean, low, high = (found[key][area] for key in ("mean", "low", "high"))
    return f"{_number(mean)} ({_number(low)} to {_number(high)})"


def _rounded(one: dict[str, Any]) -> float:
    """The score without any cortex, which but for rounding is often 0."""
    value = one["nothing"]["mean"]
    return value if abs(value) > 1e-4 * abs(one["full"]["mean"]) else 0.0


def _number(value: float) -> str:
    """Three digits; contributions may be of any size."""
    return f"{value:.3g}".replace("-", "−")


def _curve(one: dict[str, Any]) -> Markup:
    shares, random = 100 * np.array(one["shares"]), one["random"]

    def draw(axes: Axes) -> None:
        axes.fill_between(shares, random["low"], random["high"], color=MUTED, alpha=0.25, lw=0)
        axes.plot(shares, random["scores"], color=MUTED, lw=1.2, label="random orders")
        for by, colour in zip(BY, (ACCENT, EXTRA[0]), strict=True):
            for end, style in (("highest", "-"), ("lowest", ":")):
                axes.plot(
                    shares,
                    one[by]["deletion"][end],
                    color=colour,
                    lw=1.7,
                    linestyle=style,
                    label=f"{'gradient' if by == 'gradient' else 'areas'}, {end} first",
                )
        axes.axhline(0, color=RULE, lw=0.7)
        axes.set_xlabel("% of cortex replaced by the average", color=MUTED)
        axes.set_ylabel(f"score: {one['score']}", color=MUTED)
        axes.legend(frameon=False, fontsize=7, labelcolor=INK, handlelength=1.6)

    return inline(
        draw,
        size=(5.2, 3.2),
        salt=f"deletion-{one['subject']}-{one['score']}",
        label=f"Score {one['score']} of subject {one['subject']} while cortex is deleted",
    )


def _test(one: dict[str, Any]) -> list[str]:
    """A sentence on each map, and one on how alike they are."""
    found, orders = [], count_text(len(one["random"]["areas"]), "random order")
    for by, words in BY.items():
        test = one[by]["deletion"]
        highest, random, lowest, p = (
            _number(test[key]) for key in ("area_highest", "area_random", "area_lowest", "p_value")
        )
        found.append(
            f"{words[0].upper()}{words[1:]}: the mean score is {highest} while cortex is replaced "
            f"from where the map is highest on, {random} in {orders} (p = {p}), and {lowest} from "
            f"where the map is lowest on: {'passed' if test['faithful'] else 'not passed'}."
        )
    if one["agreement"] is not None:
        found.append(f"Over areas, the two maps correlate with {_number(one['agreement'])}.")
    return found
