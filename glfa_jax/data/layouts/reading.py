"""A study as its layout reads it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from glfa_jax import config
from glfa_jax.data import DataError, placed
from glfa_jax.data.layouts import LAYOUTS, Problems, Study, layout_of


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`, and so does what is
    not there, unless that is all of a subject."""
    layout = layout_of(data)
    for key in ("split", "films"):
        if getattr(data, key) is not None and not layout.divides:
            able = ", ".join(sorted(each.name for each in LAYOUTS.values() if each.divides))
            raise DataError(
                f"data.{key}: must be left out for layout {layout.name}, whose runs and clips are "
                f"known; it is for {able}"
            )
    if not data.root.is_dir():
        raise DataError(f"{placed(data.root)}: no such study folder")
    study = layout.read(data, problems)
    there = {run.subject for run in study.runs}
    for subject in data.subjects:
        if subject not in there and (lacks := problems.missing.forget(subject)):
            problems.add(
                DataError(f"{data.root}: nothing of subject {subject} is there, neither {lacks}")
            )
    if not study.runs and problems.missing.lines:
        raise DataError(f"{data.root}: no run can be used; {'; '.join(problems.missing.lines)}")
    return study


def read_wordless(data: config.Data, problems: Problems) -> Study:
    """The same of a study whose captions are still to be written, which has none of any clip."""
    problems.wordless = True
    with TemporaryDirectory() as folder:
        table = Path(folder) / "captions.tsv"
        table.write_text("stim_file\tcaption\n", encoding="utf-8")
        return read_study(data.model_copy(update={"captions": table}), problems)
