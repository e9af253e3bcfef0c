"""The metrics of the report: a chart against chance and a table."""

import math
from collections.abc import Sequence
from functools import partial

from glfa_jax.report import figures
from glfa_jax.report.html import escape
from glfa_jax.report.inputs import Metric
from glfa_jax.report.words import digits_of, listing, p_text, value_text


def metrics_section(metrics: Sequence[Metric]) -> str:
    several = len({m.method for m in metrics}) > 1
    head = ["mean ± std", "chance", "95 % interval", "clips", "p"]
    first = ["metric", "subject", *(["method"] if several else [])]
    rows = []
    for m in metrics:
        # All numbers of a row to the same decimals.
        value = partial(value_text, digits=digits_of(m.mean))
        spread = "" if m.std is None else f" ± {value(m.std)}"
        bounds = "–" if m.low is None else f"{value(m.low)} to {value(m.high)}"
        texts = [m.subject, *([m.method] if several else [])]
        numbers = [
            f"{value(m.mean)}{spread}",
            value(m.chance),
            bounds + ("†" if m.approximate else ""),
            f"{m.n:,}",
            p_text(m.p_value),
        ]
        label = m.name + (", lower is better" if m.better == "lower" else "")
        rows.append(
            f'<tr><th scope="row" class="text">{escape(label)}</th>'
            + "".join(f'<td class="text">{escape(text)}</td>' for text in texts)
            + "".join(f"<td>{number}</td>" for number in numbers)
            + "</tr>"
        )
    header = "".join(f'<th scope="col" class="text">{name}</th>' for name in first)
    header += "".join(f'<th scope="col">{name}</th>' for name in head)
    note = "Mean ± standard deviation. p is one-sided: how likely such a mean is by chance."
    if any(m.approximate for m in metrics):
        note += " † No interval was recorded: normal approximation from std and n."
    return (
        f"{_chart(metrics, several=several)}"
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of metrics">'
        f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">{note}</p>'
    )


def _chart(metrics: Sequence[Metric], *, several: bool) -> str:
    def numbers(m: Metric) -> list[float]:
        return [v for v in (m.mean, m.low, m.high, m.chance) if v is not None]

    drawn = [m for m in metrics if max(map(abs, numbers(m))) <= 1]
    rest = list(dict.fromkeys(m.name for m in metrics if m not in drawn))
    if not drawn:
        return ""
    span = (min(0.0, math.floor(min(v for m in drawn for v in numbers(m)) * 5) / 5), 1.0)
    subjects = len({m.subject for m in metrics}) > 1
    rows = []
    for m in drawn:
        who = ([f"subject {m.subject}"] if subjects else []) + ([m.method] if several else [])
        small = f" <small>{escape(', '.join(who))}</small>" if who else ""
        words = f"{m.name}: {value_text(m.mean)}"
        if m.low is not None:
            words += f", 95 % interval {value_text(m.low)} to {value_text(m.high)}"
        if m.chance is not None:
            words += f", chance {value_text(m.chance)}"
        strip = figures.interval(
            m.mean,
            low=m.low,
            high=m.high,
            mark=m.chance,
            span=span,
            filled=m.p_value is not None and m.p_value < 0.05,
            label=words,
        )
        rows.append(
            f'<div class="row"><span>{escape(m.name)}{small}</span>{strip}'
            f'<span class="value">{value_text(m.mean)}</span></div>'
        )
    foot = f'<div class="row"><span></span>{figures.axis(span)}<span></span></div>'
    note = (
        "Dots: mean, filled where p < 0.05, hollow where not or not tested. Bars: 95 % interval. "
        "Upright strokes: chance. "
        "Each metric has its own chance level, so compare a dot with its stroke, "
        "not with other rows."
    )
    if rest:
        note += f" Not on this scale, see the table: {listing(rest)}."
    return f'<div class="dots">{"".join(rows)}{foot}</div><p class="note">{escape(note)}</p>'
