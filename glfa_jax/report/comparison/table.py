"""What the tables of a comparison say, whatever they are written in."""

import math
from collections.abc import Sequence

from glfa_jax.comparison.differences import Comparison, Entry, MetricComparison, Tested
from glfa_jax.metrics.statistics import Interval
from glfa_jax.report.published import METRICS, SENTENCE, TABLE_2
from glfa_jax.report.tables import Cell, Level, Table, cells
from glfa_jax.report.words import count_text, digits_of, listing, subjects_text, value_text


def tables(comparison: Comparison, *, published: bool) -> tuple[Table, ...]:
    """Every method's results; every test; the paper's results."""
    tested = any(entry.difference for metric in comparison.metrics for entry in metric.entries)
    return (
        results(comparison),
        *([tests(comparison)] if tested else []),
        *([paper()] if published else []),
    )


def results(comparison: Comparison) -> Table:
    """The form of the paper's Table 2."""
    several = any(len(method.seeds) > 1 for method in comparison.methods)
    head = [Cell("method"), *([Cell("seeds")] if several else [])]
    rows = []
    for i, method in enumerate(comparison.methods):
        count = [Cell(f"{len(method.seeds)}")] if several else []
        entries = [_result(metric, metric.entries[i]) for metric in comparison.metrics]
        is_reference = method.name == comparison.reference
        name = Cell(method.name, "reference" if is_reference else "")
        rows.append((name, *count, *entries))
    chance = [_chance(metric) for metric in comparison.metrics]
    blank = [Cell("")] if several else []
    foot = ((Cell("chance"), *blank, *chance),) if any(cell.text != "–" for cell in chance) else ()
    return Table(
        title=f"Results on {_clips(comparison)}",
        labels=len(head),
        head=(*head, *(_heading(metric) for metric in comparison.metrics)),
        rows=tuple(rows),
        foot=foot,
        notes=(*_reading(comparison, several=several), *comparison.notes),
    )


def tests(comparison: Comparison) -> Table:
    """Every difference from the reference with all that is known about it."""
    seeds = any(
        entry.difference and entry.difference.over_seeds
        for metric in comparison.metrics
        for entry in metric.entries
    )
    head = ("metric", "method", "difference", "95 % interval", "d", "t-test", "paired t-test")
    rows = []
    for metric in comparison.metrics:
        for entry in metric.entries:
            if (d := entry.difference) is None:
                continue
            digits = _digits(metric) + 1  # differences are smaller than what differs
            tested = [d.two_sample, d.paired, *([d.over_seeds] if seeds else [])]
            rows.append(
                (
                    Cell(metric.name),
                    Cell(entry.method),
                    Cell(signed(d.estimate, digits=digits)),
                    Cell(interval_text(d.interval, digits=digits)),
                    Cell("–" if d.cohens_d is None else signed(d.cohens_d, digits=2)),
                    *(_p_cell(test) for test in tested),
                )
            )
    notes = [
        "Interval: 95 % percentile bootstrap of the mean paired difference over clips. "
        "d: Cohen's d of the paired differences, their mean over their standard deviation. "
        "t-test: Student's, two samples of clips, as in the paper. Paired t-test: the same clips "
        "under both methods, which sees smaller differences. "
        + ("Over seeds: Welch's t-test of the seeds' means. " if seeds else "")
        + "p-values are two-sided and corrected by Holm's method, each kind of test as one family; "
        "in brackets as they were before."
    ]
    return Table(
        title=f"Differences from {comparison.reference}",
        labels=2,
        head=cells([*head, *(["over seeds"] if seeds else [])]),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def paper() -> Table:
    return Table(
        title="Published: cross-subject decoding, 1,2 → 3",
        labels=2,
        head=cells(["method", "tested against", *(f"{name} ↑" for name in METRICS)]),
        rows=tuple(
            cells([method, reference, *values.split(", ")])
            for method, (reference, values) in TABLE_2.items()
        ),
        notes=(SENTENCE,),
    )


# --- cells --------------------------------------------------------------------------------------


def _heading(metric: MetricComparison) -> Cell:
    unit = f" ({metric.unit})" if metric.unit else ""
    arrow = "↑" if metric.better == "higher" else "↓"
    return Cell(f"{metric.name}{unit} {arrow}", metric.variant)


def _digits(metric: MetricComparison) -> int:
    """One number of decimals for a column."""
    return digits_of(max((entry.over_seeds.mean for entry in metric.entries), key=abs))


def _result(metric: MetricComparison, entry: Entry) -> Cell:
    digits = _digits(metric)
    main = entry.over_clips or entry.over_seeds
    text = value_text(main.mean, digits=digits) + _spread(main.std, digits)
    small = ""
    if entry.over_clips and entry.over_seeds.count > 1:
        small = f"seeds{_spread(entry.over_seeds.std, digits)}"
    level = None
    if d := entry.difference:
        # A metric of one value a run can be tested over seeds only.
        tested = d.two_sample or d.over_seeds
        level = Level.of(tested.holm) if tested else None
    return Cell(text, small, level)


def _spread(std: float, digits: int) -> str:
    return "" if math.isnan(std) else f" ± {value_text(std, digits=digits)}"


def _chance(metric: MetricComparison) -> Cell:
    if metric.chance is None:
        return Cell("–")
    low, high = (value_text(level, digits=_digits(metric)) for level in metric.chance)
    return Cell(low if low == high else f"{low} to {high}")


def _p_cell(tested: Tested | None) -> Cell:
    if tested is None:
        return Cell("–")
    raw = p_value_text(tested.test.p_value)
    return Cell(p_value_text(tested.holm), f"({raw})", Level.of(tested.holm))


# --- words --------------------------------------------------------------------------------------


def p_value_text(p: float) -> str:
    """Two digits that count, and as many more as show on which side of a class's limit it lies; 0
    only below what is stored.
    """
    if p == 0:
        return "0"
    digits, style = (1, "e") if p < 0.001 else (4, "f") if p < 0.0095 else (3, "f")
    while Level.of(float(text := f"{p:.{digits}{style}}")) is not Level.of(p):
        digits += 1
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e−{-int(exponent)}" if exponent else mantissa


def signed(value: float, *, digits: int) -> str:
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    text = value_text(value, digits=digits)
    return text if text.startswith("−") or not text.strip("0.,") else f"+{text}"


def interval_text(interval: Interval | None, *, digits: int) -> str:
    if interval is None:
        return "–"
    return f"{signed(interval.low, digits=digits)} to {signed(interval.high, digits=digits)}"


def _clips(comparison: Comparison) -> str:
    counts = comparison.clips
    total = sum(counts.values())
    return f"{total:,} clips of {subjects_text(tuple(counts))}"


def _reading(comparison: Comparison, *, several: bool) -> Sequence[str]:
    """How to read the table of results."""
    each = [m.name for m in comparison.metrics if m.entries[0].over_clips]
    whole = [m.name for m in comparison.metrics if not m.entries[0].over_clips]
    parts = []
    if each:
        parts.append(
            "Mean ± standard deviation over clips"
            + (
                ", of the mean over seeds; “seeds ±”, the standard deviation over seeds of the "
                "mean over clips"
                if several
                else ""
            )
        )
    if whole:
        parts.append(
            f"{listing(whole)}: one value a run"
            + ("; mean ± standard deviation over seeds" if several else "")
        )
    notes = [f"{'. '.join(parts)}."]
    tests = []
    if each and (count := comparison.comparisons("paired")):
        tests.append(("Student's two-sample t-test over clips", count))
    if whole and (count := comparison.comparisons("over_seeds")):
        tests.append((f"Welch's t-test over seeds for {listing(whole)}", count))
    if tests:
        signs = ", ".join(f"{level.value} {level.words}" for level in Level)
        kinds = "; of ".join(
            f"{test}, corrected by Holm's method for {count_text(count, 'comparison')}"
            for test, count in tests
        )
        notes.append(f"Against {comparison.reference}: {signs}, of {kinds}.")
    if len(comparison.clips) > 1:
        notes.append(
            "Tests over clips take every clip once, as its mean over the subjects who saw it."
        )
    protocol = comparison.protocol
    notes.append(f"Protocol: {protocol}, trained on {subjects_text(protocol.train_subjects)}.")
    return notes
