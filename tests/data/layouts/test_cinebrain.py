"""CineBrain by the page that says how: the events that its program writes, read from fMRIPrep's
output; and its vectors, which are no scans."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems
from glfa_jax.data.layouts.reading import read_study
from tests.data.scans import write_cifti

PAGE = Path(__file__).parents[3] / "docs" / "studies" / "cinebrain.md"
FMRIPREP = Path("data/cinebrain/derivatives/fmriprep")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """Two runs of two subjects; the page's program has written their events."""
    monkeypatch.chdir(tmp_path)
    root = Path("data/cinebrain")
    (root / "beh_data").mkdir(parents=True)
    (root / "stimuli").mkdir()
    rows = ["stim_file\tcaption"]
    for subject in ("0001", "0003"):
        for run in (11, 20):
            table = root / "beh_data" / f"sub_{subject}_{run}.csv"
            table.write_text("subject,videoStartTime,videoStopTime\nx,12.5,1092.5\n")
            name = f"sub-{subject}_task-shape_run-{run}_space-fsLR_den-91k_bold"
            path = FMRIPREP / f"sub-{subject}" / "func" / f"{name}.dtseries.nii"
            write_cifti(path, 1400, step=0.8)
            path.with_name(f"{name}.json").write_text(json.dumps({"RepetitionTime": 0.8}))
    for clip in (*range(2700, 2970), *range(5130, 5670), *range(7830, 8100)):
        rows.append(f"{clip:06d}.mp4\tclip {clip}")
        (root / "stimuli" / f"{clip:06d}.mp4").touch()
    (root / "stimuli" / "captions.tsv").write_text("\n".join(rows) + "\n")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(program, str(PAGE), "exec"), {})
    return root


def settings(root: Path) -> config.Data:
    return config.Data(
        layout="bids",
        root=root,
        store=Path("store.zarr"),
        subjects=("0001", "0003"),
        task="shape",
        space="fsLR",
    )


def test_what_was_shown_follows_from_the_number_of_the_run(study):
    read = read_study(settings(FMRIPREP), Problems(skip=False))
    shown = {
        (run.subject, run.name): (run.split, run.trials[0].clip, run.trials[-1].clip)
        for run in read.runs
    }
    assert shown == {
        ("0001", "11"): ("train", "002700.mp4", "002969.mp4"),
        ("0001", "20"): ("test", "005130.mp4", "005399.mp4"),
        ("0003", "11"): ("train", "005400.mp4", "005669.mp4"),
        ("0003", "20"): ("test", "007830.mp4", "008099.mp4"),
    }
    trial = read.runs[0].trials[1]
    assert (trial.onset, trial.duration) == (16.5, 4.0)
    assert read.notes == ()


def test_vectors_of_voxels_are_no_scans(tmp_path):
    for subject in ("0001", "0003"):
        folder = tmp_path / f"sub-{subject}" / "visual_audio"
        folder.mkdir(parents=True)
        np.save(folder / "0.npy", np.zeros(18_946, np.float32))
    said = r"has no scans .*; visual_audio/0\.npy and its like are vectors of voxels .*fMRIPrep"
    with pytest.raises(DataError, match=said) as caught:
        read_study(settings(tmp_path), Problems(skip=False))
    assert "\n" not in str(caught.value)
