"""The documentation site: `sphinx-build -n -W --keep-going docs docs/_build/html`."""

import os
import re
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the gallery's examples run while the site is built

from glfa_jax import __version__
from glfa_jax.config import Config, Section

project = "glfa_jax"
author = "the glfa_jax authors"
release = version = __version__
copyright = "the glfa_jax authors, Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_options.md", "gallery"]  # the gallery is built as _gallery
html_theme = "furo"
html_title = f"glfa_jax {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # links to headings, as on GitHub

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
# Shapes, as in Float[Array, "b f h w c"], and other libraries' types have no page here.
nitpick_ignore_regex = [("py:.*", ".*")]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_gallery",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
}


def setup(app):
    app.connect("autodoc-process-docstring", _plain)
    app.connect("autodoc-process-signature", _short)
    app.connect("builder-inited", _write_options)


def _plain(app, what, name, obj, options, lines):
    """Docstrings are plain text: their lines and indents are kept, and only `code` is marked up."""
    if lines and lines[0].startswith("Alias for field number"):  # of a named tuple
        lines.clear()
    lines[:] = [_line(line) if line.strip() else "" for line in lines]


def _short(app, what, name, obj, options, signature, returns):
    return tuple(
        text and text.replace("jaxlib._jax.Array", "Array") for text in (signature, returns)
    )


def _write_options(app):
    """Every option of a configuration with its default, as a table for each section."""
    path = Path(__file__).with_name("_options.md")
    path.write_text("\n".join(_tables(Config, "")), encoding="utf-8")


def _tables(section, prefix):
    about = " ".join((section.__doc__ or "").split("\n\n")[0].split())
    yield from (f"## {prefix or 'At the top'}", "", about, "")
    yield from ("| option | default | |", "|---|---|---|")
    inner = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            inner.append((kind, f"{prefix}.{name}".lstrip(".")))
        else:
            default = "required" if field.is_required() else f"`{field.default!r}`"
            yield f"| `{name}` | {default} | {field.description or ''} |"
    yield ""
    for kind, name in inner:
        yield from _tables(kind, name)


def _line(text):
    parts = re.split(r"(`+[^`]+`+)", text)
    parts[::2] = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
    return "| " + "".join(parts)
