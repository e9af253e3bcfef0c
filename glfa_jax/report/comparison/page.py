"""A comparison as one HTML page that needs nothing beside itself."""

from collections.abc import Sequence

from glfa_jax.comparison.differences import Comparison, Difference, MetricComparison
from glfa_jax.report import figures
from glfa_jax.report.comparison.table import LEVELS, Cell, Level, Table, interval_text, signed
from glfa_jax.report.html import escape, fill
from glfa_jax.report.words import count_text, digits_of, listing, subjects_text


def page(comparison: Comparison, tables: Sequence[Table]) -> str:
    """The tables, and after the first of them a figure of the differences on each metric."""
    names = [method.name for method in comparison.methods]
    sections = [_table(table) for table in tables]
    sections.insert(1, _figures(comparison))
    return fill(
        "compare.html",
        videos=False,
        title=escape(
            f"Comparison of {listing(names) if len(names) < 4 else f'{len(names)} methods'}"
        ),
        summary=escape(_summary(comparison)),
        facts=_facts(comparison),
        sections="\n".join(filter(None, sections)),
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
            if (
                (d := entry.difference)
                and d.two_sample
                and Level.of(d.two_sample.holm) != Level.NONE
            ):
                rises = (d.estimate > 0) == (metric.better == "higher")
                better, worse = better + rises, worse + (not rises)
    count = comparison.comparisons("paired")
    rest = count - better - worse
    return (
        f"Against {reference}, in {count_text(count, 'comparison')} of a method on a metric: "
        f"{better} better, {worse} worse, {rest} not distinguishable (two-sample t-test over "
        "clips, p < 0.05 after correction)."
    )


def _facts(comparison: Comparison) -> str:
    protocol = comparison.protocol
    clips = [f"{count_text(count, 'clip')} of subject {s}" for s, count in comparison.clips.items()]
    facts = [
        ("Protocol", f"{protocol.name}, {protocol.pretraining} pretraining"),
        ("Trained on", subjects_text(protocol.train_subjects)),
        ("Decoded", listing(clips)),
        ("Reference", comparison.reference),
    ]
    for method in comparison.methods:
        seeds = f"seed{'s' if len(method.seeds) > 1 else ''} {listing([*map(str, method.seeds)])}"
        facts.append((method.name, f"{seeds}; {method.sampling}"))
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts
    )


# --- tables -------------------------------------------------------------------------------------


def _table(table: Table) -> str:
    header = "".join(
        f'<th scope="col"{_text(i, table)}>{_content(cell)}</th>'
        for i, cell in enumerate(table.head)
    )
    body = "".join(_row(row, table, "") for row in table.rows)
    body += "".join(_row(row, table, ' class="foot"') for row in table.foot)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f"<section><h2>{escape(table.title)}</h2>{_keys(table)}"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{notes}</section>"
    )


def _row(row: Sequence[Cell], table: Table, kind: str) -> str:
    first = f'<th scope="row" class="text">{_content(row[0])}</th>'
    rest = "".join(
        f"<td{_text(i, table) or _level(cell)}>{_content(cell)}</td>"
        for i, cell in enumerate(row[1:], start=1)
    )
    return f"<tr{kind}>{first}{rest}</tr>"


def _text(column: int, table: Table) -> str:
    return ' class="text"' if column < table.labels else ""


def _level(cell: Cell) -> str:
    if cell.level is None:
        return ""
    return f' class="{cell.level.name.lower()}" title="{escape(LEVELS[cell.level])}"'


def _content(cell: Cell) -> str:
    sign = f"<sup>{cell.level.value}</sup>" if cell.level else ""
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    return f"{escape(cell.text)}{sign}{small}"


def _keys(table: Table) -> str:
    """What the colours and signs mean, where there are any."""
    if not any(cell.level for row in table.rows for cell in row):
        return ""
    keys = "".join(
        f'<li class="key {level.name.lower()}">{level.value} {escape(words)}</li>'
        for level, words in LEVELS.items()
    )
    return f'<ul class="keys">{keys}</ul>'


# --- figures ------------------------------------------------------------------------------------


def _figures(comparison: Comparison) -> str:
    panels = [_panel(metric) for metric in comparison.metrics if _differences(metric)]
    if not panels:
        return ""
    note = (
        f"Dots: mean difference from {comparison.reference}, filled where p < 0.05 by the paired "
        "t-test over clips (over seeds for a metric of one value a run) after correction. Bars: "
        "95 % bootstrap interval over clips, not corrected. Upright strokes: no difference. Every "
        "metric has its own scale."
    )
    return (
        f"<section><h2>Paired differences from {escape(comparison.reference)}</h2>"
        f'<div class="panels">{"".join(panels)}</div><p class="note">{escape(note)}</p></section>'
    )


def _differences(metric: MetricComparison) -> list[tuple[str, Difference]]:
    return [(entry.method, entry.difference) for entry in metric.entries if entry.difference]


def _panel(metric: MetricComparison) -> str:
    differences = _differences(metric)
    span = _span([d for _, d in differences])
    digits = digits_of(span[1] - span[0])
    rows = []
    for method, d in differences:
        tested = d.paired or d.over_seeds
        words = f"{method} on {metric.name}: {signed(d.estimate, digits=digits)}"
        if d.interval:
            words += f", 95 % interval {interval_text(d.interval, digits=digits)}"
        strip = figures.interval(
            d.estimate,
            low=d.interval and d.interval.low,
            high=d.interval and d.interval.high,
            mark=0.0,
            span=span,
            filled=tested is not None and tested.holm < 0.05,
            label=words,
        )
        rows.append(
            f'<div class="row"><span>{escape(method)}</span>{strip}'
            f'<span class="value">{signed(d.estimate, digits=digits)}</span></div>'
        )
    unit = f" ({metric.unit})" if metric.unit else ""
    better = "" if metric.better == "higher" else " <small>lower is better</small>"
    return (
        f"<figure><h3>{escape(metric.name + unit)}{better}</h3>"
        f'<div class="dots">{"".join(rows)}'
        f'<div class="row"><span></span>{figures.axis(span)}<span></span></div></div></figure>'
    )


def _span(differences: Sequence[Difference]) -> tuple[float, float]:
    """All that a figure shows and zero, with a margin; of some width where nothing differs."""
    shown = [0.0]
    for d in differences:
        shown += [d.estimate] if d.interval is None else [d.interval.low, d.interval.high]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin
