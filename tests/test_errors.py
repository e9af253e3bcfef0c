"""What a message holds of a file: one line that a terminal can show."""

import pytest

from glfa_jax.errors import InputError, spell_hidden


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u05e9\u05dc \U0001f600", "caf\u00e9 \u05e9\u05dc \U0001f600"),
        ("two\nlines", "two lines"),
        ("\x1b[31m \x07 \u202e \udcff", "\\u001b[31m \\u0007 \\u202e \\udcff"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_a_message_is_one_printable_line(text, shown):
    message = str(InputError(text))
    assert message == shown
    assert message.isprintable()


def test_what_is_kept_stays_and_nothing_else():
    assert spell_hidden("a\tb\nc\x00", keep="\t") == "a\tb\\u000ac\\u0000"
