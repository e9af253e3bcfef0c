"""A comparison as one HTML page that needs nothing beside itself."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from glfa_jax.comparison.differences import Comparison, MetricComparison
from glfa_jax.report import html
from glfa_jax.report.charts import Chart, Point
from glfa_jax.report.comparison.table import signed
from glfa_jax.report.tables import Level, Table
from glfa_jax.report.words import count_text, digits_of, listing, subjects_text


def page(comparison: Comparison, tables: Sequence[Table]) -> str:
    """The tables, and after the first of them a figure of the differences on each metric."""
    names = [method.name for method in comparison.methods]
    what = listing(names) if len(names) < 4 else f"{len(names)} methods"
    return html.render(
        "comparison.html",
        title=f"Comparison of {what}",
        summary=_summary(comparison),
        facts=_facts(comparison),
        reference=comparison.reference,
        tables=tables,
        panels=[
            _panel(metric)
            for metric in comparison.metrics
            if any(e.difference for e in metric.entries)
        ],
    )


def _summary(comparison: Comparison) -> str:
    reference = comparison.reference
    if len(comparison.methods) == 1:
        return f"Results of {reference}; with another method beside it, they would be compared."
    if not comparison.comparisons("paired"):
        return f"Against {reference}, on metrics of one value a run, which only seeds can test."
    better = worse = 0
    for metric in comparison.metrics:
        for entry in metric.entries:
            d = entry.difference
            if d and d.two_sample and Level.of(d.two_sample.holm) != Level.NONE:
                rises = (d.estimate > 0) == (metric.better == "higher")
                better, worse = better + rises, worse + (not rises)
    count = comparison.comparisons("paired")
    rest = count - better - worse
    return (
        f"Against {reference}, in {count_text(count, 'comparison')} of a method on a metric: "
        f"{better} better, {worse} worse, {rest} not distinguishable (two-sample t-test over "
        "clips, p < 0.05 after correction)."
    )


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    protocol = comparison.protocol
    clips = [f"{count_text(count, 'clip')} of subject {s}" for s, count in comparison.clips.items()]
    facts = [
        ("Protocol", str(protocol)),
        ("Trained on", subjects_text(protocol.train_subjects)),
        ("Decoded", listing(clips)),
        ("Reference", comparison.reference),
    ]
    for method in comparison.methods:
        seeds = f"seed{'s' if len(method.seeds) > 1 else ''} {listing([*map(str, method.seeds)])}"
        facts.append((method.name, f"{seeds}; {method.sampling}"))
    return facts


def _panel(metric: MetricComparison) -> dict[str, Any]:
    """title, note, chart; the note says which way is better, where that needs saying."""
    points = []
    for entry in metric.entries:
        if (d := entry.difference) is None:
            continue
        tested = d.paired or d.over_seeds
        filled = tested is not None and tested.holm < 0.05
        low, high = (d.interval.low, d.interval.high) if d.interval else (None, None)
        points.append(Point(entry.method, d.estimate, filled, low=low, high=high, mark=0.0))
    shown = [value for point in points for value in point.numbers]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.1  # of some width where nothing differs
    span = (low - margin, high + margin)
    text = partial(signed, digits=digits_of(span[1] - span[0]))
    return {
        "title": metric.name + (f" ({metric.unit})" if metric.unit else ""),
        "note": "" if metric.better == "higher" else "lower is better",
        "chart": Chart(points, span, title=metric.name, text=text),
    }
