"""Text in pages: shown, and never more than shown."""

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from glfa_jax.report.html import environment, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <b> & 'c'", "a &lt;b&gt; &amp; &#x27;c&#x27;"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        (
            "\u05e9\u05dc\u05d5\u05dd caf\u00e9 \U0001f600",
            "\u05e9\u05dc\u05d5\u05dd caf\u00e9 \U0001f600",
        ),
        ("bell \x07 null \x00 escape \x1b[31m", "bell \\u0007 null \\u0000 escape \\u001b[31m"),
        ("del \x7f next line \x85", "del \\u007f next line \\u0085"),
        (
            "\u202eeman\u202c \u2066a\u2069 \u200f \u061c",
            "\\u202eeman\\u202c \\u2066a\\u2069 \\u200f \\u061c",
        ),
        ("line\u2028separator \udcff", "line\\u2028separator \\udcff"),
    ],
)
def test_what_cannot_be_seen_is_spelt(text, shown):
    assert escape(text) == shown
    escape(text).encode("utf-8")


def test_templates_show_data_as_text_by_the_same_rule():
    text = "it's <b>bold</b> \x07 \u202eeman"
    page = environment().from_string("<p title='{{ text }}'>{{ text }} {{ safe }}</p>")
    shown = "it&#x27;s &lt;b&gt;bold&lt;/b&gt; \\u0007 \\u202eeman"
    expected = f"<p title='{shown}'>{shown} <i></i></p>"
    assert page.render(text=text, safe=Markup("<i></i>")) == expected
    with pytest.raises(UndefinedError, match="text"):
        page.render(safe="")
