"""The training of the report: a loss curve a stage, and what is missing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glfa_jax.report.figures import DRAWABLE, loss_curve, loss_terms
from glfa_jax.report.inputs import STAGES, Log
from glfa_jax.report.words import count_text, listing

_LAST_STEP = 1e12  # beyond, no axis has room for the numbers


def training_section(logs: Mapping[str, Log]) -> dict[str, Any]:
    """curves: title, SVG and words of each stage; absent: names of the stages that left no log;
    notes: what the curves do not show."""
    curves, absent, notes = [], [], []
    for stage, log in logs.items():
        entries = [entry for entry in log.entries if abs(entry["step"]) <= _LAST_STEP]
        losses = [entry["loss"] for entry in entries if "loss" in entry]
        notes += [f"{STAGES[stage]}: {note}" for note in _left_out(log, entries)]
        if not losses:
            absent.append(STAGES[stage])
            continue
        words = (
            f"{entries[-1]['step']:,.0f} steps{_duration(entries)}; loss {losses[0]:.3g} at first, "
            f"{losses[-1]:.3g} at last"
        )
        label = f"{STAGES[stage]}, loss curve: {words}"
        curves.append((STAGES[stage], loss_curve(entries, salt=stage, label=label), words))
    return {"curves": curves, "absent": absent and listing(absent), "notes": notes}


def _left_out(log: Log, entries: Sequence[dict[str, float]]) -> Iterator[str]:
    if log.damaged:
        yield f"left out of the log as damaged: {count_text(log.damaged, 'line')}."
    drawn = loss_terms(entries) if entries else []
    beyond = len(log.entries) - len(entries)
    beyond += sum(abs(entry.get(key, 0)) > DRAWABLE for entry in entries for key in drawn)
    if beyond:
        yield f"too large to be drawn: {count_text(beyond, 'value')}."


def _duration(entries: Sequence[dict[str, float]]) -> str:
    """From the first log entry to the last, by the clock: pauses count."""
    times = [entry["time"] for entry in entries if math.isfinite(entry.get("time", math.nan))]
    seconds = max(times) - min(times) if times else 0
    if seconds < 1 or math.isinf(seconds):
        return ""
    if seconds < 120:
        return f" over {seconds:.0f} s"
    return f" over {seconds / 60:.0f} min" if seconds < 7200 else f" over {seconds / 3600:.1f} h"
