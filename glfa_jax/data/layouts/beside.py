"""What belongs to a scan in BIDS and lies beside it, above it or in the raw study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glfa_jax.data import DataError
from glfa_jax.data.layouts.naming import FORM, Dataset, Name
from glfa_jax.files import read_object

TOO_LONG = 1e9  # seconds; more digits may be more than a float has


def raw_of(root: Path) -> Path | None:
    """The study that a derivative was made of, where it lies around it as BIDS recommends."""
    above = root.resolve().parent
    return above.parent if above.name == "derivatives" else None


@dataclass(frozen=True)
class Beside:
    """Finds it. The study that a derivative was made of, `raw`, is looked through as well."""

    derivative: Dataset
    raw: Dataset | None

    @classmethod
    def of(cls, scan: Path) -> "Beside":
        """By where a scan lies: in a folder of its subject's, or alone."""
        name = Name.parse(scan)
        whose = f"sub-{name.entities.get('sub', '')}" if name else ""
        root = next((x.parent for x in scan.parents if whose and x.name == whose), scan.parent)
        raw = raw_of(root)
        return cls(Dataset(root), None if raw is None else Dataset(raw))

    @property
    def stimuli(self) -> Path:
        """The folder of what was shown: the derivative's, or the raw study's where it has none."""
        inside = self.derivative.root / "stimuli"
        return inside if self.raw is None or inside.is_dir() else self.raw.root / "stimuli"

    def events(self, scan: Name) -> Path:
        """The nearest table of the derivative, else of the raw study."""
        for dataset in filter(None, (self.derivative, self.raw)):
            found = dataset.inherited(
                scan,
                below=self.derivative.root,
                suffix="events",
                extensions=(".tsv",),
                ignoring=FORM,
            )
            if found:
                return found[-1].path
        kept = [f"{key}-{value}" for key, value in scan.entities.items() if key not in FORM]
        subject = f"sub-{scan.entities['sub']}"
        looked = scan.path.parent, *([self.raw.root / subject] if self.raw else [])
        raise DataError(
            f"{scan.path.with_name('_'.join([*kept, 'events.tsv']))}: no such file; looked in "
            f"{' and '.join(map(str, looked))}"
        )

    def confounds(
        self, scan: Name, *, asked: bool, notes: list[str]
    ) -> tuple[Path | None, list[Path]]:
        """fMRIPrep's table, and it with its sidecar where the cleaning has `asked` for them."""
        for suffix in ("timeseries", "regressors"):  # as versions before 20.2 call it
            try:
                found = self.derivative.inherited(
                    scan,
                    below=self.derivative.root,
                    suffix=suffix,
                    extensions=(".tsv",),
                    ignoring=FORM,
                    having={"desc": "confounds"},
                )
            except DataError as error:
                if asked:
                    raise
                notes.append(str(error))
                return None, []
            if found:
                path = found[-1].path
                read = [path, path.with_suffix(".json")] if asked else []
                return path, [file for file in read if file.is_file()]
        return None, []

    def has_sidecar(self, scan: Name) -> bool:
        """Whether `sidecars` would find a file."""
        return any(
            dataset.inherited(
                scan, below=self.derivative.root, suffix="bold", extensions=_sidecars_of(scan)
            )
            for dataset in filter(None, (self.derivative, self.raw))
        )

    def sidecars(self, scan: Name) -> tuple[list[Path], dict[str, tuple[Any, Path]]]:
        """The files that say when volumes were taken, the nearest last; what they say, and which.

        The raw study is asked where the derivative does not tell the repetition time. BIDS lets a
        file without slice timing leave out StartTime.
        """
        extensions = _sidecars_of(scan)
        paths: list[Path] = []
        stated: dict[str, tuple[Any, Path]] = {}
        for dataset in filter(None, (self.derivative, self.raw)):
            names = dataset.inherited(
                scan, below=self.derivative.root, suffix="bold", extensions=extensions
            )
            paths = [*(name.path for name in names), *paths]
            for name in reversed(names):
                sidecar = read_object(name.path, error=DataError)
                stated = {key: (value, name.path) for key, value in sidecar.items()} | stated
            if "RepetitionTime" in stated:
                break
        if not paths:
            path = scan.path.with_name(f"{scan.path.name.partition('.')[0]}.json")
            raise DataError(f"{path}: no such file, and it should say RepetitionTime")
        if "RepetitionTime" not in stated:
            raise DataError(f"{paths[-1]}: must be JSON with RepetitionTime in seconds")
        stated.setdefault("StartTime", (0.0, paths[-1]))
        for name in ("RepetitionTime", "StartTime"):
            value, path = stated[name]
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if not plain or not abs(value) < TOO_LONG:
                raise DataError(f"{path}: {name} must be a number of seconds, is {value!r:.50}")
        return paths, stated


def _sidecars_of(scan: Name) -> list[str]:
    """Endings; some versions of fMRIPrep keep a part of the extension: _bold.dtseries.json."""
    _, *endings = scan.path.name.split(".")
    return [".json", *(f".{ending}.json" for ending in endings[:-1])]
