"""Steps compiled for devices that may not be here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.models import small_unet
from glfa_jax.errors import TrainingError
from glfa_jax.training import compile_only
from glfa_jax.training.compile_only import Report, devices_of

ROOT = Path(__file__).parents[2]
# One level, one layer: programs for TPUs cannot be cached and take long to compile.
UNET = small_unet(8, groups=4, head=4, condition=64) | {
    "down_block_types": ["CrossAttnDownBlock3D"],
    "up_block_types": ["CrossAttnUpBlock3D"],
}


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """Configurations alone: nothing else is read."""
    folder = tmp_path_factory.mktemp("foundation")
    for path in (ROOT / "foundation" / "simulated").rglob("*config.json"):
        target = folder / path.relative_to(ROOT / "foundation" / "simulated")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "text-to-video" / "unet" / "config.json").write_text(json.dumps(UNET))
    return folder


def compiled_for(
    topology: str, folder: Path, out: Path, *options: str, stage: str = "cotrain"
) -> dict:
    sets = [f"foundation={folder}", "data.resolution=[16,16]", "data.map_size=32", *options]
    command = [sys.executable, "-m", f"train.{stage}", "--config", "configs/demo.yaml"]
    command += [word for pair in sets for word in ("--set", pair)]
    command += ["--compile-only", topology, "--report", str(out)]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert {True: "  fits: ", False: "  does not fit: "}[found["fits"]] in done.stdout
    return found


def test_the_devices_here(foundation, tmp_path):
    found = compiled_for(
        "here",
        foundation,
        tmp_path / "report.json",
        "hardware.mesh.fsdp=2",
        "hardware.shard_from_bytes=4096",
    )
    assert found["mesh"] == {"data": 2, "fsdp": 2, "frame": 1}
    assert 4 * found["capacity"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["operations"] > 1e6
    assert found["memory"]["arguments"] > found["memory"]["alias"] > 1e5
    # Gradients are summed over devices, parameters in pieces put together.
    assert found["collectives"]["all-reduce"]["bytes"] > 1e4
    assert found["collectives"]["all-gather"]["bytes"] > 1e4
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("stage", ["pretrain", "contrast"])
def test_the_stages_before(stage, foundation, tmp_path):
    """In stage 1, CLIP and the text encoder lie beside what trains."""
    (foundation / "clip" / "preprocessor_config.json").unlink(missing_ok=True)
    found = compiled_for("here", foundation, tmp_path / "report.json", stage=stage)
    assert found["mesh"] == {"data": 4, "fsdp": 1, "frame": 1}
    assert found["operations"] > 1e6
    trained = found["memory"]["alias"]
    assert trained > 1e5
    frozen = found["memory"]["arguments"] - trained
    assert (frozen > trained) == (stage == "contrast")
    assert not (tmp_path / "runs").exists()


def test_what_is_said_where_the_capacity_is_not_known():
    report = Report(
        topology="here",
        device="a new one",
        devices=1,
        mesh={},
        fits=None,
        capacity=None,
        needed=3 * 2.0**30,
        memory={},
        operations=None,
        bytes_accessed=None,
        collectives={},
        least_step=None,
        compile_seconds=1,
    )
    assert "  unknown whether it fits: 3.00 GiB a chip\n" in str(report)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_slice_of_tpus(foundation, tmp_path):
    found = compiled_for("v5e:2x2", foundation, tmp_path / "report.json")
    assert found["device"] == "TPU v5 lite"
    assert found["fits"]
    assert found["least_step"] > 0


def test_an_unknown_slice_is_rejected():
    with pytest.raises(TrainingError, match="no such TPU slice, or libtpu is not installed"):
        devices_of("v5e:3x3")


@pytest.mark.parametrize(
    ("message", "needed", "capacity"),
    [
        ("total memory required for HLO temporaries (18.60G) exceeds available HBM (15.75G).",
         18.6, 15.75),
        ("Used 512.5M of 15.75G hbm. Exceeded hbm capacity", 512.5 / 1024, 15.75),
        ("something else", None, None),
    ],
)  # fmt: skip
def test_what_the_compiler_says_when_memory_does_not_suffice(message, needed, capacity):
    found = compile_only._rejection(message)
    gib = 2**30
    assert found["fits"] is False
    assert found["needed"] == (needed and pytest.approx(needed * gib))
    assert found.get("capacity") == (capacity and capacity * gib)
