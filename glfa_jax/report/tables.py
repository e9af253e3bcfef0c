"""What a table says, whatever it is written in: HTML, Markdown or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """The paper's three classes of a p-value, and the sign of each."""

    STRONG = "‡"
    WEAK = "†"
    NONE = "○"

    @classmethod
    def of(cls, p_value: float) -> "Level":
        return cls.STRONG if p_value < 0.001 else cls.WEAK if p_value < 0.05 else cls.NONE

    @property
    def words(self) -> str:
        return {Level.STRONG: "p < 0.001", Level.WEAK: "p < 0.05", Level.NONE: "p ≥ 0.05"}[self]

    @property
    def css(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Cell:
    """`small`: said beside in smaller type."""

    text: str
    small: str = ""
    level: Level | None = None


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The first `labels` columns hold words, the others numbers; `foot` rows end the table.

    caption: a title that stands in the table itself.
    """

    title: str
    labels: int
    head: Row
    rows: tuple[Row, ...]
    foot: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    caption: str = ""

    @property
    def levels(self) -> list[Level]:
        """All there are, where a cell has one: what the colours and signs mean."""
        return list(Level) if any(cell.level for row in self.rows for cell in row) else []


def cells(texts: Sequence[str]) -> Row:
    return tuple(map(Cell, texts))
