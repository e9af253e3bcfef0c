"""Tab-separated tables as BIDS writes them, and as R, pandas and spreadsheets do."""

import csv
import io
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from glfa_jax.data import DataError
from glfa_jax.files import read_text, reason

MOST_ROWS = 500_000  # no study shows as many clips, and each takes memory
LONGEST_NAME = 255  # bytes; no disk takes longer ones


class Row(dict[str, str]):
    """Values by column, of those asked for; `where` says file and line, for messages."""

    def __init__(self, values: dict[str, str], *, path: Path, line: int):
        super().__init__(values)
        self.line, self.where = line, f"{path}: line {line}"

    @property
    def stim_file(self) -> str:
        """The clip of the row, as a path from stimuli/, however it is spelled."""
        return stimulus(self["stim_file"], said=f"{self.where}: stim_file")


def stimulus(value: str, *, said: str) -> str:
    """A file as a path from stimuli/, however it is spelled: one file has one name.

    said: where it is named, for the DataError where it names no file inside.
    """
    # BIDS counts stim_file from stimuli/; some writers repeat the folder.
    parts = PurePosixPath(value).parts
    parts = parts[1:] if parts[:1] == ("stimuli",) else parts
    if (
        not parts
        or value in ("n/a", "stimuli")
        or value.startswith("/")
        or value.endswith(("/", "/."))
        or ".." in parts
        or "\\" in value
        or any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in value)
        or any(len(part.encode()) > LONGEST_NAME for part in parts)
    ):
        raise DataError(f"{said} must name a file inside stimuli/, is {value!r:.100}")
    return "/".join(parts)


def stop(error: DataError) -> None:
    raise error


def read_header(path: Path) -> list[str]:
    """The columns of a table."""
    _, header = next(_records(path, read_text(path, error=DataError)), (1, []))
    return [name.strip() for name in header]


def read_table(
    path: Path, *, columns: Sequence[str], failed: Callable[[DataError], None] = stop
) -> list[Row]:
    """These `columns` of a table, which may have more; every row must fill all of them.

    A value may be in quotes, with those inside it doubled (RFC 4180); spaces around it, as in
    columns of one width, are no part of it. `failed` is called with a row that is no use and may
    raise to stop; the row is left out. Rows of nothing are passed over.
    """
    records = _records(path, read_text(path, error=DataError))
    _, header = next(records, (1, []))
    header = [name.strip() for name in header]
    for name in columns:
        if (count := header.count(name)) != 1:
            raise DataError(
                f"{path}: has {'several columns' if count else 'no column'} {name}, its first line "
                f"names {', '.join(header) or 'none':.200}"
            )
    rows = []
    for count, (line, record) in enumerate(records):
        if count == MOST_ROWS:
            raise DataError(f"{path}: has more than {MOST_ROWS:,} rows")
        while len(record) > len(header) and not record[-1].strip():
            record.pop()
        given = dict(zip(header, record, strict=False))
        row = Row({k: given[k].strip(" ") for k in columns if k in given}, path=path, line=line)
        missing = [name for name in columns if name not in row]
        if len(record) > len(header):
            failed(
                DataError(
                    f"{row.where} has {len(record)} values for {len(header)} columns; names of "
                    "rows, as R writes them, need a column of their own"
                )
            )
        elif missing:
            failed(DataError(f"{row.where} has no value for {missing[0]}"))
        else:
            rows.append(row)
    return rows


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record begins, and its values; empty ones are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: line {line} is no row of tab-separated values ({reason(error)}); a value "
                "that begins with a quote must end with one, and those inside it be doubled"
            ) from None
        if any("\0" in value for value in record):
            raise DataError(f"{path}: line {line} holds a NUL, must be UTF-8 text")
        if any(value.strip() for value in record):
            yield line, record
