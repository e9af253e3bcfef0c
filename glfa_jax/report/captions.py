"""The page on which captions are read and corrected, a row a clip beside its middle frame."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from glfa_jax.files import write_atomically
from glfa_jax.report import html
from glfa_jax.report.html import Markup
from glfa_jax.report.pictures import Picture
from glfa_jax.report.words import count_text

WIDEST = 144  # pixels of a frame: thousands of them are on the page


def write(
    path: Path,
    rows: Sequence[Mapping[str, str]],
    pictures: Mapping[str, Picture],
    *,
    table: Path,
    divided: Sequence[str],
    others: Sequence[Mapping[str, str]],
) -> None:
    """Writes the page beside the table.

    rows: of the table, by column. pictures: of the clips that have one. divided: clips whose frames
    had different captions. others: rows that are not shown, and saved as they are.
    """
    tree = {"name": table.name, "rows": [*map(dict, rows)], "others": [*map(dict, others)]}
    script = html.render("captions.js")
    write_atomically(
        path,
        html.render(
            "captions.html",
            title=f"Captions: {table.name}",
            summary=_summary(len(rows), len(divided)),
            facts=[
                ("Table", str(table)),
                ("Written by", ", ".join(_writers(rows)) or "a person"),
                ("Checked", f"{sum(bool(row['checked']) for row in rows):,} of {len(rows):,}"),
            ],
            sections=[],
            table=table.name,
            rows=rows,
            pictures=pictures,
            divided=frozenset(divided),
            data=_embedded(tree),
            script=Markup(script),
            allowed=Markup(f"'sha256-{_hash(script)}'"),
        ),
    )


def _summary(clips: int, divided: int) -> str:
    if not divided:
        return f"{count_text(clips, 'clip')}; the frames of each agree on its caption."
    return (
        f"{count_text(clips, 'clip')}; the frames of {divided:,} do not agree on a caption, so "
        "look there first."
    )


def _writers(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows if row["model"]))


def _embedded(tree: object) -> Markup:
    """JSON as a script element may hold it: with nothing in it that could end the element."""
    return Markup(json.dumps(tree).replace("<", "\\u003c"))


def _hash(script: str) -> str:
    """By which the page says that this script, and no other, may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
