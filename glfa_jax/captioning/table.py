"""The table of captions: what is kept of one that is there, and how it is written.

stim_file       the clip
caption         a sentence
votes           how many of the frames it looks at have it as their caption, such as 2/3
others          what the other frames' captions are
model           who wrote it, and how; empty for captions from elsewhere
checked         anything, once a person has read or corrected the caption
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from glfa_jax import files
from glfa_jax.data.captions import MISSING, read_captions
from glfa_jax.data.tables import Row, read_header, read_table
from glfa_jax.errors import InputError

COLUMNS = ("stim_file", "caption", "votes", "others", "model", "checked")
BETWEEN = " | "  # of the others

Entry = dict[str, str]  # by column


def read(path: Path) -> dict[str, Entry]:
    """Every row by its clip, with all of its columns; empty where there is no table yet."""
    if path.suffix != ".tsv":
        raise InputError(f"{path}: --out and data.captions must name a table, such as captions.tsv")
    if not (path.exists() or path.is_symlink()):
        return {}
    header = read_header(path)
    if "onset" in header:
        raise InputError(
            f"{path}: describes films by their times (it has a column onset), must have a row a "
            "clip; name another table with --out"
        )
    read_captions(path)  # whoever prepares the study could not use it either
    rows = read_table(path, columns=list(dict.fromkeys(header)))
    return {row.stim_file: _entry(row) for row in rows}


def _entry(row: Row) -> Entry:
    """The row with all of our columns, in which nothing is written in one way."""
    ours = {name: row.get(name, "") for name in COLUMNS}
    return {**row, **{name: "" if value in MISSING else value for name, value in ours.items()}}


def is_kept(entry: Entry, recipe: str) -> bool:
    """Whether a row is not to be written anew: people's words, and those of the same recipe."""
    return entry["model"] in ("", recipe) or bool(entry["checked"])


def is_divided(entry: Entry) -> bool:
    """Whether the frames of the clip had different captions."""
    return bool(entry["others"])


def made(clip: str, caption: str, votes: int, captions: Iterable[str], recipe: str) -> Entry:
    """The row of a clip of which `votes` frames say `caption`."""
    captions = list(captions)
    others = [other for other in dict.fromkeys(captions) if other not in ("", caption)]
    share = f"{votes}/{len(captions)}"
    return dict(zip(COLUMNS, (clip, caption, share, BETWEEN.join(others), recipe, ""), strict=True))


def write(path: Path, entries: Mapping[str, Entry]) -> None:
    """The whole table, aside and then renamed; columns of others stay behind ours."""
    columns = dict.fromkeys([*COLUMNS, *(name for row in entries.values() for name in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries.values())
    files.write_atomically(path, text.getvalue())
