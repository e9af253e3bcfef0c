"""Pages in the common style: a template of this package is filled."""

import html
import unicodedata
from importlib import resources
from pathlib import Path
from string import Template


def fill(template: str, *, videos: bool, **parts: str) -> str:
    """A page of this package in the common style; `parts` are HTML.

    A page's own style lies beside it, under its name. videos: whether the page may embed any.
    """
    files = resources.files("glfa_jax.report")

    def filled(name: str, **more: str) -> str:
        return Template(files.joinpath(name).read_text(encoding="utf-8")).substitute(parts, **more)

    own = Path(template).with_suffix(".css").name
    styles = [name for name in ("style.css", own) if files.joinpath(name).is_file()]
    head = filled(
        "head.html",
        style="\n".join(map(filled, styles)),
        media="media-src data:; " if videos else "",
    )
    return filled(template, head=head.rstrip())


# What changes how the text around it reads, and is not seen itself: bidirectional marks.
_MARKS = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def escape(text: str) -> str:
    """Text as HTML shows it; control characters, which it must not hold, as their numbers."""
    return html.escape("".join(map(_shown, text)))


def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character not in "\n\t"
    if hidden or ord(character) in _MARKS:
        return f"\\u{ord(character):04x}"
    return character
