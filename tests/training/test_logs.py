"""The log of a run: a full disk or a damaged line costs no training."""

import json
import resource
from pathlib import Path

from glfa_jax.training.logs import Log, read_log


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_log(folder)]


def test_what_is_no_line_of_a_log_is_left_out(tmp_path):
    good = json.dumps({"step": 1, "time": 0.0, "metrics": {"loss": 1.0}}).encode()
    bad = (
        b"[]",
        b"{}",
        b"7",
        b"\xff",
        b'{"step": "1", "metrics": {}}',
        b'{"step": 2}',
        b"[" * 10**5,
    )
    bad += (b'{"step": NaN, "metrics": {}}', good[:-5])
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([good, *bad, good]))
    assert steps(tmp_path) == [1, 1]
    Log(tmp_path, step=5).close()
    assert steps(tmp_path) == [1, 1]
    assert steps(tmp_path / "none") == []


def test_lines_that_a_full_disk_rejected_are_written_when_there_is_room(tmp_path, capsys):
    """A real limit of the system: it takes a part of the second line, and then nothing more."""
    log = Log(tmp_path, step=0)
    log.write(1, metrics={"loss": 1.0})
    soft, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "log.jsonl").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, most))
        log.write(2, metrics={"loss": 2.0})
        for step in range(3, 40):  # more than a queue holds
            log.write(step, metrics={"loss": 3.0})
        assert (tmp_path / "log.jsonl").stat().st_size == size + 9
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, most))
    assert steps(tmp_path) == [1]
    log.write(40, metrics={"loss": 4.0})
    log.close()
    assert steps(tmp_path) == list(range(1, 41))
    assert capsys.readouterr().err.count("log.jsonl: cannot be written (File too large)") == 1
