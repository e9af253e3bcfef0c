"""A study as its layout reads it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from glfa_jax import config
from glfa_jax.data import DataError, placed
from glfa_jax.data.layouts import Problems, Study, layout_of


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    layout = layout_of(data)
    if not data.root.is_dir():
        raise DataError(f"{placed(data.root)}: no such study folder")
    return layout.read(data, problems)


def read_wordless(data: config.Data, problems: Problems) -> Study:
    """The same of a study whose captions are still to be written, which has none of any clip."""
    problems.wordless = True
    with TemporaryDirectory() as folder:
        table = Path(folder) / "captions.tsv"
        table.write_text("stim_file\tcaption\n", encoding="utf-8")
        return read_study(data.model_copy(update={"captions": table}), problems)
