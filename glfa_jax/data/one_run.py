"""The scans of one run by their files, where no study is configured."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.cleaning.confounds import CONFOUNDS
from glfa_jax.data.drawing import Drawing, Kind
from glfa_jax.data.layouts import Blocks, Run
from glfa_jax.data.layouts.beside import Beside
from glfa_jax.data.layouts.naming import Name
from glfa_jax.data.layouts.scans import CIFTI, GIFTI
from glfa_jax.data.readers import cifti, gifti_pair, header_of, trimmed, volume
from glfa_jax.data.timing import TIME_TOLERANCE, repetition_time

NEW = "new"  # a subject whose name is not known
_SIDES = {"L": "left", "R": "right"}


def read_run(
    files: Sequence[Path],
    *,
    drawing: Drawing,
    data: config.Data,
    step: float,
    confounds: Path | None = None,
    stated: float | None = None,
    notes: list[str],
) -> Run:
    """A run that shows nothing yet: headers alone are read.

    files: GIFTI of the left and the right hemisphere, one dense CIFTI series, or one NIfTI of
        volumes, as the model's own scans were. Sidecar and confounds are found by BIDS names.
    data: of the model's configuration. step: seconds between volumes that it was trained with.
    confounds: fMRIPrep's table. stated: the repetition time, seconds, whatever the files say.
    notes: take what is not as it should be and does no harm.

    Raises DataError for scans that the model cannot take.
    """
    names = _in_order([_name(Path(path).absolute()) for path in files], drawing)
    scan, paths = names[0], tuple(name.path for name in names)
    headers = [header_of(path) for path in paths]
    beside = Beside.of(scan.path)
    sidecars, said = beside.sidecars(scan) if beside.has_sidecar(scan) else ([], {})
    known = stated or (float(said["RepetitionTime"][0]) if said else None)
    found = [
        repetition_time(
            path,
            header=header.seconds,
            sidecar=known or header.seconds,
            trust="sidecar" if stated else data.repetition_time,
            notes=notes,
            source="--repetition-time" if stated else "its sidecar",
        )
        for path, header in zip(paths, headers, strict=True)
        if known or header.seconds
    ]
    if not found:
        raise DataError(
            f"{scan.path}: neither its header nor a sidecar says the repetition time; state it "
            "(--repetition-time)"
        )
    if abs(found[0] - step) > TIME_TOLERANCE:
        wrong = "" if stated else ", or state their TR if that is wrong (--repetition-time)"
        raise DataError(
            f"{scan.path}: TR {found[0]:g} s, but this decoder was trained at a TR of {step:g} s; "
            f"resample the scans in time first{wrong}"
        )
    asked = drawing.cleaning.reads_confounds
    table, _ = (confounds, []) if confounds else beside.confounds(scan, asked=asked, notes=notes)
    if asked and table is None:
        raise DataError(
            f"{scan.path}: has no table of confounds beside it (...{CONFOUNDS}timeseries.tsv), "
            f"which this decoder's cleaning needs ({drawing.cleaning.words}); name it (--confounds)"
        )
    begin, end = data.drop_volumes
    read = _reader(paths, drawing)
    start = float(said["StartTime"][0]) if said else 0.0
    return Run(
        subject=scan.entities.get("sub", NEW),
        name=scan.label(tasks=True) if scan.entities else scan.path.name,
        split="test",
        repetition_time=found[0],
        start_time=start + begin * found[0],
        trials=(),
        scans=paths,
        files=(*paths, *sidecars),
        blocks=partial(trimmed, read, paths[0], begin, end) if begin or end else read,
        sides=tuple(values for header in headers for values in header.sides),
        dropped=(begin, end),
        confounds=table,
    )


def _name(path: Path) -> Name:
    """Of files with names of any kind."""
    parsed = Name.parse(path)
    return parsed or Name(path, {}, {}, suffix="", extension="".join(path.suffixes))


def _kind(path: Path) -> Kind:
    if path.name.endswith((".gii", ".gii.gz", CIFTI, f"{CIFTI}.gz")):
        return "surface"
    if path.name.endswith((".nii", ".nii.gz")):
        return "volume"
    raise DataError(
        f"{path}: must be a functional GIFTI ({GIFTI}), a dense CIFTI series ({CIFTI}) or a NIfTI "
        "of volumes (.nii.gz)"
    )


def _in_order(names: Sequence[Name], drawing: Drawing) -> list[Name]:
    """The one file, or the left and the right one; raises DataError for what is no one run."""
    if drawing.kind == "image":
        raise DataError(
            "this decoder was trained on scans that are images of the flat cortex, which cannot be "
            "read alone; its Python function decode takes maps"
        )
    words = {"surface": f"surface scans in {drawing.space}", "volume": f"volumes {drawing.space}"}
    for name in names:
        if _kind(name.path) != drawing.kind:
            raise DataError(
                f"{name.path}: holds a series of {_kind(name.path)} values, but this decoder was "
                f"trained on {words[drawing.kind]}"
            )
        space = name.entities.get("space", drawing.space)
        if space != drawing.space:
            raise DataError(
                f"{name.path}: is in space {space}, but this decoder was trained on "
                f"{words[drawing.kind]}"
            )
    sides = [name for name in names if name.path.name.endswith((".gii", ".gii.gz"))]
    if not sides:
        if len(names) > 1:
            raise DataError(
                f"{names[1].path}: one run is decoded at a time, and {names[0].path.name} is one"
            )
        return list(names)
    if len(names) > 2 or len(sides) < len(names):
        several = ", ".join(name.path.name for name in names)
        raise DataError(f"{several}: must be the left and the right hemisphere of one run")
    hemispheres = [name.entities.get("hemi") for name in names]
    if len(names) == 1:
        which = _SIDES.get(hemispheres[0] or "", "one")
        raise DataError(f"{names[0].path}: is the {which} hemisphere alone; name both, left first")
    if set(hemispheres) == set(_SIDES):
        return sorted(names, key=lambda name: name.entities["hemi"])
    if hemispheres != [None, None]:
        raise DataError(f"{names[1].path}: must be the other hemisphere of {names[0].path.name}")
    return list(names)


def _reader(paths: tuple[Path, ...], drawing: Drawing) -> partial[Blocks]:
    if drawing.kind == "volume":
        return partial(volume, *paths, drawing.mesh)
    return partial(gifti_pair, *paths) if len(paths) == 2 else partial(cifti, *paths)
