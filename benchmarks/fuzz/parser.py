"""What is fuzzed: a reader of users' files, and small sound files for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class Unnoticed(Exception):
    """Damage that a checksum tells was read as if it were none."""


@dataclass(frozen=True)
class Parser:
    """name: on the command line.

    make: fills a folder with sound files, and gives those that are to be changed, one at a time;
        the others are what they need around them.
    read: reads one of them as the commands do. What is wrong raises one of our sentences; Unnoticed
        where something else was read than was written, and should have been found out.
    share: how often it is tried, compared with the others; slow ones less.
    words: what its files are made of besides numbers.
    says: what a sentence may name instead of the file or its folder.
    """

    name: str
    make: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], object]
    share: int = 20
    words: Sequence[str] = ()
    says: Sequence[str] = field(default=())
