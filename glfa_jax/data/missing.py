"""What of a study is not there, as after a partial download, in as few lines as can be."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

SHOWN = 20  # names in a line
_NUMBER = re.compile(r"\d+")


@dataclass
class Missing:
    """Collects what is not there: runs of subjects, by the name of what they show or their own;
    and video files."""

    _runs: dict[str, dict[str, None]] = field(default_factory=dict)
    _videos: dict[Path, None] = field(default_factory=dict)

    def run(self, subject: str, name: str) -> None:
        self._runs.setdefault(subject, {})[name] = None

    def video(self, path: Path) -> None:
        self._videos[path] = None

    def forget(self, subject: str) -> str:
        """The names of a subject's runs, in words, which are then in no line; empty for none."""
        return listed(self._runs.pop(subject, {}))

    @property
    def lines(self) -> list[str]:
        """A line for each set of subjects that lack the same runs or for each set of runs that the
        same subjects lack, whichever are fewer; and one for the videos of a folder."""
        by_run: dict[str, list[str]] = {}
        for subject, names in self._runs.items():
            for name in names:
                by_run.setdefault(name, []).append(subject)
        of_subjects = _alike(self._runs)
        of_runs = [(runs, subjects) for subjects, runs in _alike(by_run)]
        lines = [
            f"not there: {listed(runs)} of subject{'s' * (len(subjects) > 1)} {listed(subjects)}"
            for runs, subjects in min(of_subjects, of_runs, key=len)
        ]
        folders = groupby(sorted(self._videos), key=lambda path: path.parent)
        for folder, paths in folders:
            lines.append(f"not there: {listed(path.name for path in paths)} in {folder}")
        return lines


def _alike(lists: Mapping[str, Iterable[str]]) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Lists, each with all names that have it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, values in lists.items():
        found.setdefault(tuple(sorted(values)), []).append(name)
    return list(found.items())


def listed(names: Iterable[str]) -> str:
    """Names in words; those that count on are a stretch: seg1, seg4 to seg18."""
    parts = list(_stretches(sorted(dict.fromkeys(names), key=natural)))
    if len(parts) > SHOWN:
        parts = [*parts[:SHOWN], f"{len(parts) - SHOWN} more"]
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _stretches(names: Sequence[str]) -> Iterator[str]:
    start = 0
    for i, name in enumerate(names):
        if i + 1 == len(names) or not _follows(name, names[i + 1]):
            if i - start >= 2:
                yield f"{names[start]} to {name}"
            else:
                yield from names[start : i + 1]
            start = i + 1


def _follows(name: str, other: str) -> bool:
    """Whether two names are one but for their last number, which counts on."""
    ours, theirs = list(_NUMBER.finditer(name)), list(_NUMBER.finditer(other))
    if not ours or not theirs:
        return False
    a, b = ours[-1], theirs[-1]
    around = (name[: a.start()], name[a.end() :]) == (other[: b.start()], other[b.end() :])
    return around and int(b[0]) == int(a[0]) + 1


def natural(name: str) -> list[tuple[int, str]]:
    """To sort by: seg10 after seg2."""
    parts = filter(None, re.split(r"(\d+)", name))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
