"""Pages in the common style: a template of this package is filled and written in one go."""

import os
from importlib import resources
from pathlib import Path
from string import Template


def fill(template: str, **parts: str) -> str:
    """A page of this package in the common style; `parts` are HTML."""
    files = resources.files("glfa_jax.report")
    style, page = (files.joinpath(n).read_text(encoding="utf-8") for n in ("style.css", template))
    return Template(page).substitute(style=style, **parts)


def save(page: str, target: Path) -> None:
    """Writes aside, then renames."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
