"""One worker at a time: who is second is told who works there; the dead hold nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from glfa_jax import lock
from glfa_jax.errors import InputError

HOLDS = """
import sys, time
from pathlib import Path
from glfa_jax.lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(folder: Path) -> Path:
    """The lock of a process on another host."""
    other = replace(lock.Holder.me(), host="node7", machine="node7", process=4321)
    path = folder / ".lock"
    path.write_text(json.dumps(asdict(other) | {"beat": "0"}))
    return path


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.5)
    monkeypatch.setattr(lock, "BEAT", 0.05)


def test_the_second_is_shown_who_works_there_since_when_and_what_to_do(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(InputError) as told, lock.only_one(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    entries = json.loads((tmp_path / ".lock").read_text())
    for part in (str(process.pid), entries["host"], entries["since"], "run the same command again"):
        assert part in str(told.value)


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_killed_holder_holds_nothing(tmp_path, reaped):
    process = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    if reaped:
        process.wait()
    else:
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    with lock.only_one(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    process.wait()
    assert not list(tmp_path.iterdir())


def test_a_number_used_again_is_not_taken_for_the_holder(tmp_path):
    other = replace(lock.Holder.me(), started="1")
    (tmp_path / ".lock").write_text(json.dumps(asdict(other)))
    with lock.only_one(tmp_path):
        pass


def test_on_another_host_it_lives_while_it_gives_signs(tmp_path, fast):
    path = elsewhere(tmp_path)
    ended = threading.Event()
    other = lock._holder(path.read_bytes())
    assert other is not None
    beating = threading.Thread(target=lock._beat, args=(path, other, ended))
    beating.start()
    try:
        with pytest.raises(InputError, match="4321 on node7"), lock.only_one(tmp_path):
            pass
    finally:
        ended.set()
        beating.join()


def test_on_another_host_silence_is_death(tmp_path, fast, capsys):
    elsewhere(tmp_path)
    with lock.only_one(tmp_path):
        pass
    assert "4321 on node7" in capsys.readouterr().out


def like_mine(**changes: object) -> bytes:
    return json.dumps(asdict(lock.Holder.me()) | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b'{"host": 1}', b"\xff", b"[" * 100_000),
        *(like_mine(process="1"), like_mine(process=7.0), like_mine(host=["a"])),
        *(like_mine(process=number) for number in (0, -1, 2**31, 10**400)),
    ],
)
def test_a_lock_that_nobody_can_read_is_watched_and_broken(tmp_path, fast, content):
    (tmp_path / ".lock").write_bytes(content)
    with lock.only_one(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


def test_a_lock_that_must_not_be_read_is_watched_all_the_same(tmp_path, fast, monkeypatch):
    """Of another user, who lets nobody read his files."""
    path, read = elsewhere(tmp_path), Path.read_bytes

    def rejected(self: Path) -> bytes:
        if self.exists() and b"node7" in read(self):
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", rejected)
    signs = threading.Timer(0.2, path.touch)
    signs.start()
    with pytest.raises(InputError, match="has not said its name, works"), lock.only_one(tmp_path):
        pass
    signs.join()
    with lock.only_one(tmp_path):
        assert json.loads(read(path))["process"] == os.getpid()


def test_who_waits_comes_after(tmp_path, capfd):
    process = hold(tmp_path)
    threading.Timer(0.5, process.kill).start()
    threading.Timer(0.6, process.wait).start()
    with lock.only_one(tmp_path, wait=True):
        pass
    assert f"process {process.pid}" in capfd.readouterr().out


def test_many_at_once_and_one_holds(tmp_path):
    """Each adds to a file what a second holder at the same time would spoil."""
    code = """
import sys, time
from pathlib import Path
from glfa_jax.lock import only_one
place = Path(sys.argv[1])
for _ in range(15):
    with only_one(place / "work", wait=True):
        count = int((place / "count").read_text())
        time.sleep(0.001)
        (place / "count").write_text(str(count + 1))
"""
    (tmp_path / "count").write_text("0")
    started = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert (tmp_path / "count").read_text() == "60"
    assert not list(tmp_path.glob("work/*"))


def test_a_command_that_calls_another_holds_it_once(tmp_path):
    with lock.only_one(tmp_path), lock.only_one(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_to_is_not_locked(tmp_path, monkeypatch):
    def rejected(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock.files, "aside", rejected)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with lock.only_one(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
