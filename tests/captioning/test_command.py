"""From a study without captions to one that is read, as a user would go."""

import shutil

import pytest
import yaml

from glfa_jax.captioning.captioner import Captioner
from glfa_jax.data.caption import command
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import Problems
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.majority import majority
from glfa_jax.data.video import Part, read_parts
from tests.data.conftest import CLIPS, settings, write_small_study


@pytest.fixture(scope="module")
def wordless(tmp_path_factory):
    """A study as users bring it: no captions, and a folder of models elsewhere."""
    root = write_small_study(tmp_path_factory.mktemp("wordless") / "bids")
    (root / "stimuli" / "captions.tsv").unlink()
    return root


@pytest.fixture
def root(wordless, tmp_path):
    """A copy whose stimuli may be damaged; scans are links."""
    root = tmp_path / "bids"
    shutil.copytree(wordless / "stimuli", root / "stimuli")
    for subject in ("sub-01", "sub-02"):
        (root / subject).symlink_to(wordless / subject)
    return root


@pytest.fixture
def configured(root, tmp_path):
    path = tmp_path / "study.yaml"
    data = settings(root, tmp_path / "store.zarr").model_dump(mode="json", exclude_defaults=True)
    protocol = {"train_subjects": ["01"], "test_subjects": ["02"]}
    whole = {"name": "toy", "run_dir": "runs/toy", "foundation": "foundation", "data": data}
    path.write_text(yaml.safe_dump({**whole, "protocol": protocol}))
    return path


def test_captions_of_a_study_are_what_the_captioner_says_of_its_frames(
    root, configured, blip, tmp_path, capsys
):
    torn = root / "stimuli" / "c.mp4"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:300])
    arguments = ["--config", str(configured), "--model", str(blip), "--tokens", "6"]
    arguments += ["--frames", "4", "--batch", "5"]
    table = root / "stimuli" / "captions.tsv"
    assert command(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {torn}: truncated or no video")
    assert not table.exists()

    torn.write_bytes(whole)
    assert command(arguments) == 0
    said = capsys.readouterr().out
    assert f"captions: {table} ({len(CLIPS)} written now, 0 kept)" in said
    assert "set data.captions" not in said  # the layout finds it
    captioner = Captioner.load(str(blip), tokens=6)
    wanted = {}
    for clip in CLIPS:
        (frames,) = read_parts(
            root / "stimuli" / clip,
            [Part(root / "stimuli" / clip)],
            frames=4,
            resolution=(16, 16),
        )
        wanted[clip] = majority(captioner(list(frames)))[0]
    assert len(set(wanted.values())) > 3
    data = settings(root, tmp_path / "store.zarr")
    assert read_study(data, Problems(skip=False)).captions == wanted
    page = table.with_suffix(".html").read_text()
    assert page.count("<article") == len(CLIPS)
    assert page.count("data:image/jpeg") == len(CLIPS)

    elsewhere = tmp_path / "other.tsv"
    assert command([*arguments, "--out", str(elsewhere)]) == 0
    assert f"set data.captions: {elsewhere}" in capsys.readouterr().out
    assert read_captions(elsewhere) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--frames", "0"), "--frames: must be at least 1, got 0"),
        (("--batch", "-1"), "--batch: must be at least 1, got -1"),
        (("--model", "nowhere"), "nowhere: must be a folder, or owner/name on the hub"),
        (("--out", "captions.csv"), "captions.csv: --out and data.captions must name a table"),
        (("--set", "data.task=rest"), "has no scans sub-01_task-rest"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(configured, root, blip, capsys, given, message):
    assert command(["--config", str(configured), "--model", str(blip), *given]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not list(root.rglob("*captions*"))
