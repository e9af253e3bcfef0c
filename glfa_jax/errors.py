"""What ends a command with a sentence instead of a traceback."""

from typing import ClassVar

_LONGEST = 1000  # characters of a sentence


class _Sentence(Exception):
    """Its text is one line that a terminal can show, whatever of a file is quoted in it.

    listed: whether it lists all that was found, a line each.
    """

    listed: ClassVar[bool] = False

    def __str__(self) -> str:
        lines = super().__str__().split("\n")
        return "\n".join(map(_shown, lines)) if self.listed else _shown(" ".join(lines))


def _shown(text: str) -> str:
    """Of what is too long the middle is left out."""
    text = spell_hidden(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 305]} ... {text[-300:]}"


def spell_hidden(text: str, *, keep: str = "") -> str:
    """Text in which every character that cannot be printed stands as its number, such as \\u202e.

    These are control characters, bidirectional marks, separators and lone surrogates.
    keep: characters of them that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _number(ord(c)) for c in text)


def _number(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class InputError(_Sentence, ValueError):
    """Bad input, the user's to mend: one clear sentence, what, where, and what would be right."""


class TrainingError(_Sentence, RuntimeError):
    """Training cannot start or go on; the message is one sentence: what, where, what to do."""


class Stopped(Exception):
    """The run was asked to stop and has saved; the message says at which step."""


class Terminated(BaseException):
    """A scheduler or a closed terminal ends the command. Like KeyboardInterrupt no Exception, so
    that nothing takes it for a mistake in a file."""
