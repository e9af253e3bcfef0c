"""Tab-separated tables as BIDS writes them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from glfa_jax.data import DataError


def read_table(path: Path, *, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table that has at least `columns`; every row must fill all of them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: must be UTF-8 text") from None
    reader = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}")
    rows = list(reader)
    for number, row in enumerate(rows, start=2):
        for name in columns:
            if row[name] is None:
                raise DataError(f"{path}: line {number} has no value for {name}")
    return rows
