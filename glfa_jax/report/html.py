"""HTML pages: plain data in Python, all HTML in the templates beside this file."""

import html
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from glfa_jax.errors import spell_hidden

# Line ends, spaces, and what joins letters and emoji: unprintable, and right in a text.
_KEPT = "\n\t\u00a0\u2009\u202f\u3000\u200c\u200d"


def render(template: str, **data: Any) -> str:
    """A template of `report/templates` filled with `data`, of which all text is escaped."""
    return environment().get_template(template).render(data)


def escape(value: object) -> Markup:
    """Text as HTML shows it; characters that cannot be seen, or that turn the text around them,
    as their numbers. What is `Markup` already stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(spell_hidden(str(value), keep=_KEPT)))


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("glfa_jax.report"),
        autoescape=True,
        finalize=escape,  # before jinja's own escaping, which then finds nothing left to do
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
