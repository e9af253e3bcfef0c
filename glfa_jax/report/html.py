"""Pages in the common style: a template of this package is filled and written in one go."""

import os
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


def save(page: str, target: Path) -> None:
    """Writes aside, then renames."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
