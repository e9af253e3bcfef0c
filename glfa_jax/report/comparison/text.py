"""Tables as Markdown and as LaTeX."""

import re
from collections.abc import Iterable, Sequence

from glfa_jax.report.tables import Cell, Level, Table


def markdown(tables: Iterable[Table]) -> str:
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def cell(cell: Cell) -> str:
        sign = f" {cell.level.value}" if cell.level else ""
        small = ""
        if cell.small:
            small = f" {cell.small}" if cell.small.startswith("(") else f" ({cell.small})"
        return escape_markdown(f"{cell.text}{sign}{small}")

    numbers = len(table.head) - table.labels
    lines = [
        line([cell(c) for c in table.head]),
        line(["---"] * table.labels + ["---:"] * numbers),
        *(line([cell(c) for c in row]) for row in (*table.rows, *table.foot)),
    ]
    notes = "".join(f"{escape_markdown(note)}\n\n" for note in table.notes)
    return f"## {escape_markdown(table.title)}\n\n" + "\n".join(lines) + f"\n\n{notes}"


def escape_markdown(text: str) -> str:
    """Marks what Markdown would read as more than text within a line."""
    return re.sub(r"([\\`*_\[\]|~$&]|<(?=[A-Za-z/!?]))", r"\\\1", text)


# --- LaTeX --------------------------------------------------------------------------------------

# The paper's cyan, pink and grey.
_COLOURS = {Level.STRONG: "C9EEF5", Level.WEAK: "FAD7E3", Level.NONE: "E6E6E6"}
_SIGNS = {Level.STRONG: r"\ddagger", Level.WEAK: r"\dagger", Level.NONE: r"\circ"}
_LATEX = {
    **{"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#"},
    **{"^": r"\textasciicircum{}", "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"[": "{[}", "*": "{*}"},  # after a row's end they would be options of it
    **{"±": r"$\pm$", "−": "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$"},
    **{"≥": r"$\geq$", "∞": r"$\infty$", "–": "--", "“": "``", "”": "''", "λ": r"$\lambda$"},
    **{level.value: f"${sign}$" for level, sign in _SIGNS.items()},
}


def latex(tables: Iterable[Table]) -> str:
    """Floats to be read with \\input."""
    head = "% Needs \\usepackage{booktabs} and \\usepackage[table]{xcolor}.\n"
    return head + "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    columns = "l" * table.labels + "r" * (len(table.head) - table.labels)
    foot = [r"\midrule", *map(_latex_row, table.foot)] if table.foot else []
    caption = " ".join((f"{table.title}.", *table.notes))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{" + _escape_latex(caption) + "}",
            r"\begin{tabular}{" + columns + "}",
            r"\toprule",
            _latex_row(table.head),
            r"\midrule",
            *map(_latex_row, table.rows),
            *foot,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_row(row: Sequence[Cell]) -> str:
    """A line, and under it one of what is said in small type."""

    def line(texts: Iterable[str]) -> str:
        coloured = (
            (rf"\cellcolor[HTML]{{{_COLOURS[cell.level]}}}" if cell.level else "") + text
            for cell, text in zip(row, texts, strict=True)
        )
        return " & ".join(coloured) + r" \\"

    signs = (f"$^{{{_SIGNS[cell.level]}}}$" if cell.level else "" for cell in row)
    lines = [line(_escape_latex(c.text) + sign for c, sign in zip(row, signs, strict=True))]
    if any(cell.small for cell in row):
        lines.append(
            line(rf"{{\scriptsize {_escape_latex(c.small)}}}" if c.small else "" for c in row)
        )
    return "\n".join(lines)


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
