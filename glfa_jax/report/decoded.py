"""The page of a run that was decoded: every clip beside what was shown, where that is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glfa_jax.files import write_atomically
from glfa_jax.report import html
from glfa_jax.report.clips import MEDIA_BUDGET
from glfa_jax.report.pictures import Picture, data_uri
from glfa_jax.report.words import count_text

PAGE = "index.html"


def write(
    folder: Path,
    rows: Sequence[Mapping[str, str]],
    *,
    name: str,
    facts: Sequence[tuple[str, str]],
    samples: int,
    notes: Sequence[str],
    warning: str,
    limits: str,
    budget: int = MEDIA_BUDGET,
) -> Path:
    """Writes FOLDER/index.html and returns its path.

    rows: of clips.tsv, whose files lie in the folder. name: of the run. samples: of each clip, by
    which the agreement was measured. warning: of the alignment, a sentence, or nothing. budget:
    characters that embedded videos may take; what is beyond is named by its file.
    """
    cards, left = [], budget
    for row in rows:
        named = {"shown": row["shown"], "decoded": row["file"]}
        files = {what: folder / file for what, file in named.items() if file != "n/a"}
        size = sum(4 * path.stat().st_size // 3 for path in files.values())
        fits = size <= left
        left -= size if fits else 0
        pictures: dict[str, Any] = {
            what: Picture(data_uri(path.read_bytes(), "video/mp4"), f"{row['clip']}, {what}")
            for what, path in files.items()
            if fits
        }
        cards.append({**row, "pictures": pictures})
    page = html.render(
        "decoded.html",
        title=f"Decoded: {name}",
        summary=f"{count_text(len(rows), 'clip')} decoded from the fMRI of one run. {limits}",
        facts=facts,
        sections=[],
        cards=cards,
        samples=samples,
        notes=notes,
        warning=warning,
        left_out=sum(not card["pictures"] for card in cards),
    )
    write_atomically(folder / PAGE, page)
    return folder / PAGE
