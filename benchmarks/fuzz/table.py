"""What became of the inputs, counted, as a table and as JSON."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.fuzz.serving import BAD, Kind, Limits, Outcome

_TITLES: Mapping[Kind, str] = {
    "read": "read",
    "rejected": "rejected",
    "unnoticed": "unnoticed",
    "sound": "sound rejected",
    "traceback": "tracebacks",
    "sentence": "bad sentences",
    "hang": "hangs",
    "memory": "over memory",
    "crash": "crashed",
}

_EACH = 5


@dataclass
class Row:
    """Of one parser. seconds: of reading alone."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    taken: int = 0
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        return self.kinds.total()


_OURS = re.compile(r'File "[^"]*?((?:glfa_jax|eval|train)/[^"]+)", line \d+, in (\S+)')


def sign(outcome: Outcome) -> str:
    """What failures of one cause have in common: kind, parser, our last function and the error."""
    what = outcome.says.partition(":")[0]
    if outcome.kind == "traceback":
        *_, (file, function) = [("", ""), *_OURS.findall(outcome.says)]
        what = f"{outcome.says.splitlines()[0]} in {function} of {file}"
    elif outcome.kind == "sentence":
        what = re.sub(r"^\d+ ", "too many ", what)
    elif outcome.kind in ("hang", "memory", "sound", "unnoticed"):
        what = ""
    return " ".join((outcome.case.parser, outcome.kind, what)).strip()


class Tally:
    """signs: of the failures, and how many have each."""

    def __init__(self, parsers: Sequence[str]):
        self.rows = {name: Row() for name in parsers}
        self.signs: Counter[str] = Counter()
        self._start = time.monotonic()
        self._said = self._start

    def add(self, outcome: Outcome) -> bool:
        """Counts an outcome; whether it fails in a way that none did before."""
        row = self.rows[outcome.case.parser]
        row.kinds[outcome.kind] += 1
        row.taken = max(row.taken, outcome.taken)
        row.seconds += outcome.seconds
        if outcome.kind not in BAD:
            return False
        self.signs[sign(outcome)] += 1
        return self.signs[sign(outcome)] == 1

    def kept(self, outcome: Outcome) -> bool:
        """Whether an input is worth keeping: one of the first that fail in its way."""
        return self.signs[sign(outcome)] <= _EACH

    @property
    def whole(self) -> Row:
        return Row(
            sum((row.kinds for row in self.rows.values()), Counter()),
            max((row.taken for row in self.rows.values()), default=0),
            sum(row.seconds for row in self.rows.values()),
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def failed(self) -> int:
        kinds = self.whole.kinds
        return sum(kinds[kind] for kind in BAD)

    def progress(self) -> str | None:
        """A line every ten seconds."""
        now = time.monotonic()
        if now - self._said < 10:
            return None
        self._said = now
        return f"{self.whole.inputs:,} inputs, {self.failed:,} failures, {self.seconds:.0f} s"

    def text(self, limits: Limits) -> str:
        titles = ["parser", "inputs", *_TITLES.values(), "peak MiB", "inputs/s of one reader"]
        lines = [titles, ["---"] + ["---:"] * (len(titles) - 1)]
        for name, row in [*self.rows.items(), ("all", self.whole)]:
            counts = [f"{row.kinds[kind]:,}" for kind in _TITLES]
            speed = f"{row.inputs / row.seconds:.0f}" if row.seconds else ""
            lines.append([name, f"{row.inputs:,}", *counts, f"{row.taken / 2**20:.0f}", speed])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "".join(
            "| " + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in cells) + " |\n"
            for cells in ([*enumerate(zip(line, widths, strict=True))] for line in lines)
        )
        return (
            f"{text}\n{self.whole.inputs:,} inputs in {self.seconds:.0f} s "
            f"({self.whole.inputs / self.seconds:.0f} a second), {self.failed} failures. Allowed: "
            f"{limits.seconds:g} s, {limits.memory / 2**20:.0f} MiB and {limits.times} times the "
            "file.\n" + "".join(f"{count:7,} {sign}\n" for sign, count in self.signs.most_common())
        )

    def facts(self, limits: Limits) -> dict[str, Any]:
        return {
            "limits": vars(limits),
            "seconds": self.seconds,
            "failures": self.failed,
            "signs": dict(self.signs),
            "parsers": {
                name: {"inputs": row.inputs, **{kind: row.kinds[kind] for kind in _TITLES}}
                | {"peak_bytes": row.taken, "reading_seconds": row.seconds}
                for name, row in self.rows.items()
            },
        }
