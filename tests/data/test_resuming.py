"""A preparation that is stopped, killed or runs out of room loses nothing that was finished."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.data import DataError, prepare
from glfa_jax.data.clips import ReadClips
from glfa_jax.data.pieces import Scratch, carry_out, read_rows, write_array
from glfa_jax.data.signals import ReadRun
from glfa_jax.errors import InputError
from glfa_jax.files import is_alive, whole_folder
from glfa_jax.starting import EXIT_STOPPED
from tests.data.conftest import settings, stem
from tests.test_lock import hold

RUNS = {f"sub-{subject}-run-{run}" for subject in ("01", "02") for run in ("01", "02", "03", "04")}

# Prepares in a process of its own, which is ended by force when `name` is called the nth time.
DOOMED = """
import os, signal, sys
from pathlib import Path
from glfa_jax.data import clips, prepare, signals, store as stored
from tests.data.conftest import settings

root, store, module, name, count = sys.argv[1:]
owner = {"signals": signals, "clips": clips, "store": stored.Writer}[module]
kept, left = getattr(owner, name), [int(count)]

def doomed(*given, **named):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(*given, **named)

setattr(owner, name, doomed)
prepare.prepare(settings(Path(root), Path(store)), progress=False)
"""


def arrays(path):
    """Every byte of a store but its attributes, which name places."""
    files = (p for p in sorted(path.rglob("*")) if p.is_file() and p != path / "zarr.json")
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.fixture
def done(monkeypatch):
    """The names of the tasks that are carried out."""
    names = []
    for kind in (ReadRun, ReadClips):

        def write(task, piece, kept=kind.write):
            names.append(task.name)
            kept(task, piece)

        monkeypatch.setattr(kind, "write", write)
    return names


def doom(study, path, *where):
    command = [sys.executable, "-c", DOOMED, str(study), str(path), *map(str, where)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (("signals", "write_json", 4), 6),  # while the fourth piece of nine is written
        (("store", "write", 8), 0),  # while the store is
    ],
)
def test_a_killed_preparation_goes_on_from_its_pieces(study, store, tmp_path, done, where, left):
    path = tmp_path / "a.zarr"
    assert doom(study, path, *where).returncode == -signal.SIGKILL
    assert not path.exists()
    prepare.prepare(settings(study, path), progress=False)
    assert len(done) == left
    assert arrays(path) == arrays(store.path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_several_processes_write_the_same_store(study, store, tmp_path, capsys):
    path = tmp_path / "a.zarr"
    prepare.prepare(settings(study, path, workers=2))
    assert arrays(path) == arrays(store.path)
    assert "2 subjects, samples: 6 train, 2 test" in capsys.readouterr().out
    # Neither the number of processes nor any other of these decides a number.
    for free in ({"workers": 3}, {"on_error": "skip"}, {"latents": True}):
        prepare.prepare(settings(study, path, **free))
        assert "up to date, reused" in capsys.readouterr().out


def test_only_what_a_mended_file_is_in_is_done_again(study, tmp_path, done):
    root = tmp_path / "bids"
    shutil.copytree(study, root)
    scan = Path(f"{stem(root, '02', '03')}_hemi-R_space-fsaverage5_bold.func.gii")
    whole = scan.read_bytes()
    scan.write_bytes(whole[:500])
    data = settings(root, tmp_path / "a.zarr")
    with pytest.raises(DataError, match=r"run-03_hemi-R_\S+: truncated or no GIFTI"):
        prepare.prepare(data, progress=False)
    finished = set(done) - {"sub-02-run-03"}
    scan.write_bytes(whole)
    done.clear()
    prepare.prepare(data, progress=False)
    assert set(done).isdisjoint(finished)
    assert "sub-02-run-03" in done


def test_other_settings_use_the_pieces_that_they_do_not_change(study, tmp_path, done, monkeypatch):
    path = tmp_path / "a.zarr"

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("glfa_jax.data.preparing.Assembly", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(settings(study, path), progress=False)
    assert set(done) > RUNS
    assert not path.exists()
    done.clear()
    with monkeypatch.context() as patch:
        patch.setattr("glfa_jax.data.preparing.Assembly", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(settings(study, path, window=2, lag_seconds=2.0), progress=False)
    assert done == []
    prepare.prepare(settings(study, path, map_size=16), progress=False)
    assert set(done) == RUNS  # the videos do not depend on the size of the maps


LIMITED = """
import resource, sys
from pathlib import Path
from glfa_jax.cli import guarded
from glfa_jax.preparation import prepare
from tests.data.conftest import settings

root, store, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
data = settings(Path(root), Path(store), window=8)
sys.exit(guarded(lambda: prepare(data)))
"""


# A run's piece holds 16 volumes of 504 pixels in 4 bytes, a shard of the store more than that.
@pytest.mark.parametrize(("limit", "pieces"), [(8_000, 0), (33_000, 9)])
def test_a_full_disk_is_one_sentence_and_keeps_what_is_finished(
    study, tmp_path, done, limit, pieces
):
    path = tmp_path / "a.zarr"
    command = [sys.executable, "-c", LIMITED, str(study), str(path), str(limit)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    [sentence] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in ended.stderr
    place = tmp_path / ".a.zarr.scratch" if pieces == 0 else path
    assert sentence.startswith(f"error: {place}")
    assert ": cannot be written, the disk is full (" in sentence
    assert not path.exists()
    prepare.prepare(settings(study, path, window=8), progress=False)
    assert len(done) == 9 - pieces
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_full_disk_is_never_skipped(study, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glfa_jax.data.pieces.np.lib.format.write_array_header_1_0", full)
    data = settings(study, tmp_path / "a.zarr", on_error="skip")
    message = r"cannot be written, the disk is full \([\d,]+ bytes free\); make room and run"
    with pytest.raises(InputError, match=message):
        prepare.prepare(data, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_second_preparation_waits_for_the_first(study, tmp_path, done, capsys):
    path = tmp_path / "a.zarr"
    first = hold(Scratch(path).folder)
    try:
        second = threading.Thread(target=prepare.prepare, args=[settings(study, path)])
        second.start()
        second.join(timeout=3)
        assert second.is_alive()
        assert done == []
    finally:
        first.kill()
        first.wait()
    second.join(timeout=120)
    assert path.is_dir()
    assert f"process {first.pid} on " in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_piece_is_whole_or_not_there(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    with whole_folder(tmp_path / "kind" / "piece") as folder:
        write_array(folder / "a.npy", values)
        assert not (tmp_path / "kind" / "piece").exists()
    piece = tmp_path / "kind" / "piece"
    np.testing.assert_array_equal(np.load(piece / "a.npy"), values)
    np.testing.assert_array_equal(read_rows(piece / "a.npy", 2, 3), values[2:5])
    np.testing.assert_array_equal(read_rows(piece / "a.npy"), values)
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "kind" / "other"):
        raise RuntimeError
    assert os.listdir(tmp_path / "kind") == ["piece"]


class Dying:
    """A task whose process is ended by force."""

    name, key = "dying", "0"
    sources: tuple[Path, ...] = ()

    def write(self, piece):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_reported(tmp_path):
    tasks = [(Dying(), tmp_path / "a"), (Dying(), tmp_path / "b")]
    with pytest.raises(DataError, match=r"was killed, .* a smaller data\.workers"):
        carry_out(tasks, workers=2, failed=lambda error: None, progress=False)


@pytest.mark.parametrize("how", ["twice", "with its workers"])
def test_asked_to_stop_a_preparation_ends_with_its_workers(tmp_path, how):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.data.sleeping", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        begun = [tmp_path / "a.begun", tmp_path / "b.begun"]
        while not all(path.exists() and path.read_text() for path in begun):
            assert process.poll() is None
            time.sleep(0.05)
        if how == "with its workers":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
            process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == EXIT_STOPPED
    assert "asked to stop (SIGTERM); the same command goes on from here" in said
    assert "Traceback" not in said
    assert not any(is_alive(int(path.read_text())) for path in begun)


@pytest.mark.parametrize("file", ["about.json", "mean.npy", "z.npy"])
def test_a_damaged_piece_is_one_sentence(study, tmp_path, monkeypatch, file):
    data = settings(study, tmp_path / "a.zarr", subjects=("01",))
    with monkeypatch.context() as patch:
        patch.setattr("glfa_jax.data.preparing.plan", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare.prepare(data, progress=False)
    for path in (tmp_path / ".a.zarr.scratch" / "runs").glob(f"*/{file}"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"/{file}: (not valid JSON|truncated or no array)"):
        prepare.prepare(data, progress=False)
