"""The metrics of the report: a chart against chance and a table."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from glfa_jax.report.charts import Chart, Point, floor_of
from glfa_jax.report.inputs import Metric
from glfa_jax.report.tables import Row, Table, cells
from glfa_jax.report.words import digits_of, listing, p_text, value_text


def metrics_section(metrics: Sequence[Metric]) -> dict[str, Any]:
    """chart, table; elsewhere: names of the metrics that do not fit the chart's scale."""
    several = len({m.method for m in metrics}) > 1
    subjects = len({m.subject for m in metrics}) > 1
    drawn, elsewhere = [], []
    for m in metrics:
        who = ([f"subject {m.subject}"] if subjects else []) + ([m.method] if several else [])
        filled = m.p_value is not None and m.p_value < 0.05
        point = Point(m.name, m.mean, filled, ", ".join(who), m.low, m.high, m.chance)
        if max(map(abs, point.numbers)) <= 1:
            drawn.append(point)
        elif m.name not in elsewhere:
            elsewhere.append(m.name)
    chart = None
    if drawn:
        low = floor_of(value for point in drawn for value in point.numbers)
        chart = Chart(drawn, (low, 1.0), mark="chance")
    names = ["metric", "subject", *(["method"] if several else [])]
    note = "Mean ± standard deviation. p is one-sided: how likely such a mean is by chance."
    if any(m.approximate for m in metrics):
        note += " † No interval was recorded: normal approximation from std and n."
    table = Table(
        title="Table of metrics",
        labels=len(names),
        head=cells([*names, "mean ± std", "chance", "95 % interval", "clips", "p"]),
        rows=tuple(_row(m, method=several) for m in metrics),
        notes=(note,),
    )
    return {"chart": chart, "elsewhere": elsewhere and listing(elsewhere), "table": table}


def _row(m: Metric, *, method: bool) -> Row:
    value = partial(value_text, digits=digits_of(m.mean))  # a row's numbers to the same decimals
    bounds = "–" if m.low is None else f"{value(m.low)} to {value(m.high)}"
    return cells(
        [
            m.name + (", lower is better" if m.better == "lower" else ""),
            m.subject,
            *([m.method] if method else []),
            value(m.mean) + ("" if m.std is None else f" ± {value(m.std)}"),
            value(m.chance),
            bounds + ("†" if m.approximate else ""),
            f"{m.n:,}",
            p_text(m.p_value),
        ]
    )
