"""Names of BIDS files, and which of them hold for a scan (the inheritance principle)."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.missing import natural

# Entities that say in which form a scan is given, not which scan it is.
FORM = ("hemi", "space", "den", "res", "desc", "echo", "part")
# Entities whose values are numbers: run-01 and run-1 are one run.
NUMBERED = ("run", "echo", "split", "inv", "flip")

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Name:
    """A file's name taken apart: key-value entities, then suffix and extension.

    entities: as spelled; compared: so that equal ones mean the same.
    """

    path: Path
    entities: Mapping[str, str]
    compared: Mapping[str, str]
    suffix: str
    extension: str

    @classmethod
    def parse(cls, path: Path) -> "Name | None":
        stem, dot, extension = path.name.partition(".")
        *pairs, suffix = stem.split("_")
        split = [pair.partition("-") for pair in pairs]
        if not all(key and dash and value for key, dash, value in split):
            return None
        entities = {key: value for key, _, value in split}
        compared = {key: _compared(key, value) for key, value in entities.items()}
        return cls(path, entities, compared, suffix, dot + extension)

    def run(self, *, tasks: bool) -> Key:
        """What tells the runs of a subject apart, of one task or of several `tasks`."""
        return _of_run(self.compared, tasks=tasks)

    def label(self, *, tasks: bool) -> str:
        """The run's number where that tells all, else every entity: ses-1_run-02."""
        run = _of_run(self.entities, tasks=tasks)
        if len(run) == 1 and run[0][0] == "run":
            return run[0][1]
        return "_".join(f"{name}-{value}" for name, value in run) or "only"

    def holds_for(self, scan: "Name", *, ignoring: Collection[str] = ()) -> bool:
        return all(
            scan.compared.get(key) == value
            for key, value in self.compared.items()
            if key not in ignoring
        )

    def fits(self, pattern: str) -> bool:
        """Whether the name has all entities of a shell pattern such as ses-02_run-*."""
        return all(
            key in self.entities
            and (
                fnmatchcase(self.entities[key], wanted)
                or fnmatchcase(self.compared[key], _compared(key, wanted))
            )
            for key, _, wanted in (entity.partition("-") for entity in pattern.split("_"))
        )


def _compared(key: str, value: str) -> str:
    return value.lstrip("0") or "0" if key in NUMBERED and value.isdecimal() else value


def _of_run(entities: Mapping[str, str], *, tasks: bool) -> Key:
    skip = ("sub", *(() if tasks else ("task",)), *FORM)
    return tuple((key, value) for key, value in entities.items() if key not in skip)


def in_order(key: Key) -> tuple[list, Key]:
    """Run 10 after run 2; ses-1 and ses-01 in an order of their own."""
    return [(name, natural(value)) for name, value in key], key


class Dataset:
    """The names in the folders of a study, raw or derivative; every folder is listed once."""

    def __init__(self, root: Path):
        self.root = root
        self._listed: dict[Path, list[Name]] = {}

    def names(self, folder: Path) -> list[Name]:
        """Nothing where there is no such folder."""
        if folder not in self._listed:
            paths = sorted(folder.iterdir()) if folder.is_dir() else ()
            self._listed[folder] = [name for path in paths if (name := Name.parse(path))]
        return self._listed[folder]

    def functional(self, subject: str, tasks: Collection[str]) -> Iterator[Name]:
        """Of a subject's functional folders, in all sessions; tasks: shell patterns."""
        above = self.root / f"sub-{subject}"
        for folder in sorted((above / "func", *above.glob("ses-*/func"))):
            for name in self.names(folder):
                task = name.entities.get("task", "")
                if name.entities.get("sub") == subject and any(
                    fnmatchcase(task, pattern) for pattern in tasks
                ):
                    yield name

    def anatomical(self, subject: str) -> Iterator[Name]:
        """Of a subject's anatomical folders, in all sessions."""
        above = self.root / f"sub-{subject}"
        for folder in sorted((above / "anat", *above.glob("ses-*/anat"))):
            yield from (name for name in self.names(folder) if name.entities.get("sub") == subject)

    def inherited(
        self,
        scan: Name,
        *,
        below: Path,
        suffix: str,
        extensions: Collection[str],
        ignoring: Collection[str] = (),
        having: Mapping[str, str] = {},
    ) -> list[Name]:
        """The files that hold for a scan, the farthest first: a nearer one says it better.

        below: the study that the scan lies in; its folders have the same names here. In one folder
        the file with more entities is nearer; `ignoring` some. having: entities that it must have.
        """
        found: list[Name] = []
        place = self.root
        for part in (".", *scan.path.parent.relative_to(below).parts):
            place = place / part
            here = [
                name
                for name in self.names(place)
                if name.suffix == suffix
                and name.extension in extensions
                and having.items() <= name.entities.items()
                and name.holds_for(scan, ignoring=ignoring)
            ]
            here.sort(key=_nearness)
            for one, other in pairwise(here):
                if _nearness(one) == _nearness(other):
                    raise DataError(
                        f"{place}: {one.path.name} and {other.path.name} hold both for "
                        f"{scan.path.name}; leave one of them there"
                    )
            found += here
        return found


def _nearness(name: Name) -> tuple[int, int]:
    return len(name.entities), -len(name.extension)
