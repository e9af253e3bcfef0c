"""The page of a layer that was fitted to a new subject: how well, with what, and how sure."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax.files import read_arrays, read_object, reading, write_atomically
from glfa_jax.method import DATA
from glfa_jax.report import html
from glfa_jax.report.alignment import correlation_maps
from glfa_jax.report.charts import Chart, Point, floor_of
from glfa_jax.report.displacement import Cortex, arrow_figure, how_drawn
from glfa_jax.report.figures import grid_of, loss_curve
from glfa_jax.report.inputs import ReportError
from glfa_jax.report.words import called, count_text, minutes_text, subjects_text, value_text

PAGE, ARRAYS = "index.html", "fit.npz"
_HELD_OUT = ("held_out_before", "held_out_after")


@dataclass(frozen=True)
class Fit:
    """What train.adapt left of one fit: config.json of the layer, and the arrays beside it.

    data: a key of `DATA`. anatomy: names of maps, where the layer was fitted to those. report:
    numbers by name, as `Fitted.report` and `Certainty.numbers` have them. not_measured: why the
    latter are missing, as a phrase. warning: a sentence. arrays: `mask`, and where there are some
    `shift` (h, w, 2) in pixels, `held_out_before`, `held_out_after`, `curvature` (h, w) and
    `pixel_mm`; none of a fit by an earlier version. encoder: None where it was not trained.
    """

    subject: str
    others: list[str]
    method: str
    options: dict[str, Any]
    minutes: float
    clips: int
    anatomy: list[str]
    data: str
    report: dict[str, float]
    not_measured: str
    warning: str
    arrays: dict[str, np.ndarray]
    encoder: "EncoderFit | None" = None


@dataclass(frozen=True)
class EncoderFit:
    """How the encoder was trained behind the layer.

    curve: step and loss in the clips that were held out; the loss is the mean square by which
    condition tokens differ. spread: the loss of the same tokens for all clips, the mean of those
    that were aimed at in the clips that were trained on.
    """

    curve: list[tuple[int, float]]
    kept: int
    spread: float
    held_out: int
    layer_trained: bool

    @classmethod
    def of(cls, about: dict[str, Any]) -> "EncoderFit | None":
        if "encoder_fit" not in about:
            return None
        held, report = about["encoder_fit"], about["report"]
        fit = cls(
            curve=[(int(step), float(loss)) for step, loss in held["curve"]],
            kept=int(report["encoder_step"]),
            spread=float(report["tokens_spread"]),
            held_out=int(held["held_out_clips"]),
            layer_trained=bool(held["layer_trained"]),
        )
        if not {0, fit.kept} <= dict(fit.curve).keys():
            raise ValueError(f"its curve lacks step 0 or {fit.kept}")
        return fit

    @property
    def losses(self) -> tuple[float, float]:
        """Before, and with what was kept."""
        at = dict(self.curve)
        return at[0], at[self.kept]


def write(folder: Path) -> Path:
    """Writes FOLDER/index.html from what lies in the folder, and returns its path.

    Raises ReportError, before anything is written, for a folder without a fitted layer.
    """
    page = render(read(folder))
    target = Path(folder) / PAGE
    write_atomically(target, page)
    return target


def read(folder: Path) -> Fit:
    """Raises ReportError."""
    path, arrays = Path(folder) / "model" / "config.json", Path(folder) / ARRAYS
    about = read_object(path, error=ReportError)
    with reading(path, "description of a fitted layer", error=ReportError):
        fit = Fit(
            subject=str(about["subject"]),
            others=[str(other) for other in about.get("others", [])],
            method=str(about.get("method", "glfa")),
            options=dict(about.get("options", {})),
            minutes=float(about["minutes"]),
            clips=int(about["clips"]),
            anatomy=[str(name) for name in about.get("anatomy", [])],
            data=str(about.get("fitted_to", "paired")),
            report={str(key): float(x) for key, x in about.get("report", {}).items()},
            not_measured=str(about.get("not_measured", "")),
            warning=str(about.get("warning", "")),
            arrays={},
            encoder=EncoderFit.of(about),
        )
    if not arrays.exists():
        return fit
    held = read_arrays(arrays, "archive of a fit", error=ReportError)
    mask = held.get("mask", np.zeros(0, bool))
    for name, array in held.items():
        wanted = {"pixel_mm": (), "shift": (*mask.shape, 2)}.get(name, mask.shape)
        if array.shape != wanted or not mask.any() or array.dtype.kind not in "bf":
            raise ReportError(f"{arrays}: {name} {array.shape} must be {wanted}, on some cortex.")
    return replace(fit, arrays=held)


def render(fit: Fit) -> str:
    to = subjects_text(fit.others) if fit.others else "the training subjects"
    return html.render(
        "new_subject.html",
        title=f"Alignment of subject {fit.subject}",
        summary=f"A layer ({called(fit.method, {})}) was fitted to {_material(fit)} of subject "
        f"{fit.subject}, to bring his maps to where those of {to} are. {_verdict(fit)}"
        + (f" {_of_encoder(fit.encoder)}" if fit.encoder else ""),
        facts=[
            ("Method", called(fit.method, fit.options) + (", with encoder" if fit.encoder else "")),
            ("Data", DATA.get(fit.data, fit.data)),
            ("Amount", _amount(fit)),
            ("Aligned to", to),
        ],
        moved=_moved(fit.report),
        displaced=_displaced(fit),
        sure=_sure(fit),
        encoder=fit.encoder and _encoder(fit.encoder),
    )


def _material(fit: Fit) -> str:
    return "the anatomy" if fit.anatomy else minutes_text(fit.minutes)


def _amount(fit: Fit) -> str:
    if fit.anatomy:
        return f"{count_text(len(fit.anatomy), 'map')}: {', '.join(fit.anatomy)}"
    return f"{minutes_text(fit.minutes)}, {count_text(fit.clips, 'clip')}"


def _verdict(fit: Fit) -> str:
    """The one number that says most."""
    if (told := fit.report.get("left_out")) is not None:
        return (
            "Of the variance of training subjects' displacement, anatomy told "
            f"{value_text(told, digits=2)} for those who were left out."
        )
    before, after = (fit.report.get(key) for key in _HELD_OUT)
    if before is not None and after is not None:
        verdict = f"rises from {value_text(before)} to {value_text(after)}"
        if after <= before:
            verdict = f"does not rise: it is {value_text(before)} before, {value_text(after)} after"
        return f"In clips that a layer was not fitted to, the correlation with theirs {verdict}."
    if (alike := fit.report.get("halves_correlation")) is not None:
        return f"Layers of two halves of the clips displace alike: r = {value_text(alike)}."
    return "How sure it is was not measured."


def _moved(report: dict[str, float]) -> list[str]:
    """How far maps of the clips that the layer was fitted to lie apart, as sentences."""
    if "left_out" in report:
        return ["No fMRI of the subject was read, so how far his maps move was not measured."]
    if "change" not in report:
        return []
    root = {key: value_text(max(x, 0) ** 0.5, digits=2) for key, x in report.items()}
    found = [f"The layer changes his maps by {root['change']} z (root mean square over cortex)."]
    if "distance_before" in report and "distance_after" in report:
        found.append(
            f"From the mean of the training subjects' maps of the same clips they are "
            f"{root['distance_before']} z away before alignment, {root['distance_after']} z after. "
            "These are the clips that the layer was fitted to."
        )
    return found


def _of_encoder(fit: EncoderFit) -> str:
    """What training the encoder brought, in a sentence."""
    before, after = fit.losses
    if not fit.kept:
        return "Training the encoder as well brought nothing: it stays as stage 2 left it."
    return (
        "The encoder was trained as well: in the clips that were held out, its loss fell by "
        f"{1 - after / before:.0%}."
    )


def _encoder(fit: EncoderFit) -> dict[str, Any]:
    """words: sentences. curve: a drawing of the loss in the clips that were held out."""
    unit = fit.spread or 1.0
    before, after = (value_text((loss / unit) ** 0.5, digits=2) for loss in fit.losses)
    found = f"before and by {after} at step {fit.kept:,}, which is kept"
    if not fit.kept:
        found = "as stage 2 left it, and after no step by less"
    words = [
        "What the generator is given of his clips was drawn to what it is given of the training "
        "subjects, on average over those who saw the same clip.",
        f"In the last {count_text(fit.held_out, 'clip')}, which the encoder was not trained on, "
        f"they differ by {before} {found} (root mean square; 1 is how far the mean of the tokens "
        "that are aimed at lies from them).",
        "The layer was fitted to all of the clips, those that were held out among them"
        + (", and then trained with the encoder." if fit.layer_trained else ", and stays."),
    ]
    label = "Loss in clips that were held out, over steps"
    entries = [{"step": float(step), "loss": loss} for step, loss in fit.curve]
    return {"words": words, "curve": loss_curve(entries, salt="encoder", label=label)}


def _cortex(fit: Fit) -> Cortex:
    held = fit.arrays
    pixel_mm = float(held["pixel_mm"]) if "pixel_mm" in held else None
    return Cortex(held["mask"].astype(bool), held.get("curvature"), pixel_mm)


def _displaced(fit: Fit) -> dict[str, Any]:
    """words, and where there is a displacement its drawing and how to read it."""
    shift = fit.arrays.get("shift")
    if shift is None or not shift.any():
        words = "The layer fetches no pixel's signal from one place, so there is none to show."
        if shift is not None:
            words = "The layer takes every pixel's signal from where training subjects have it."
        return {"words": words, "drawing": None}
    cortex = _cortex(fit)
    scale = grid_of([shift], mask=cortex.mask)
    label = f"Flat map of visual cortex with arrows: displacement of subject {fit.subject}"
    return {
        "words": f"It is {cortex.length(cortex.size(shift))} (root mean square over cortex).",
        "drawing": arrow_figure(shift, cortex=cortex, scale=scale, salt="shift", label=label),
        "how": how_drawn(scale, cortex),
    }


def _sure(fit: Fit) -> dict[str, Any]:
    """absent: why nothing was measured. chart, maps: of clips that layers were not fitted to.
    alike: how alike the displacements of two halves are, or how well anatomy tells those of
    training subjects, as a sentence."""
    report, before, after = fit.report, *(fit.report.get(key) for key in _HELD_OUT)
    found: dict[str, Any] = {"absent": "", "chart": None, "maps": None, "alike": ""}
    if before is not None and after is not None:
        points = [Point("before alignment", before, filled=False)]
        points += [Point("after alignment", after, filled=True)]
        span = (floor_of([before, after]), min(1.0, max(before, after, 0.2) + 0.1))
        found["chart"] = Chart(points, span, title="Correlation in clips not fitted to")
        found["maps"] = correlation_maps(
            *(fit.arrays.get(key) for key in _HELD_OUT),
            mask=fit.arrays.get("mask", np.ones((1, 1), bool)),
            note="Correlation over time of each pixel with the training subjects' mean, in clips "
            "that the layer was not fitted to.",
        )
    if {"halves_correlation", "halves_difference_pixels"} <= report.keys() and fit.arrays:
        difference = _cortex(fit).length(report["halves_difference_pixels"])
        found["alike"] = (
            "The displacements found from the first and from the last half of the clips correlate "
            f"with {value_text(report['halves_correlation'], digits=2)} and differ by {difference} "
            "(root mean square). The layer that is used was fitted to all of them."
        )
        if found["chart"] is None:
            found["alike"] += " Both were compared with the same maps of the training subjects."
    if (told := report.get("left_out")) is not None:
        found["alike"] = " ".join(filter(None, (_told(told), fit.warning)))
    if not (found["chart"] or found["alike"]):
        why = fit.not_measured or "the layer was fitted by an earlier version"
        found["absent"] = f"This was not measured: {why}."
    return found


def _told(left_out: float) -> str:
    """What can be known without fMRI of the subject: how the method does with the others."""
    return (
        "The layer was learned from how the displacement of training subjects, as fMRI showed it, "
        "goes with their anatomy. To see how well, each of them was left out once and told by the "
        f"others: {value_text(left_out, digits=2)} of the variance of their displacement from the "
        "mean was told in this way (1: all of it; 0: nothing, the mean does as well). The same "
        "number decided how strongly the regression is regularised."
    )
