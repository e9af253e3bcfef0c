"""What is installed: the package alone, whole, and its command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from glfa_jax import __version__
from glfa_jax.commands import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the tracked sources, so that nothing else is in it by chance."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for top in ("glfa_jax", "train", "eval"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = ("wheel", "--no-deps", "--no-build-isolation", "-q", "--wheel-dir", place, source)
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, cwd=place)
    [found] = place.glob("*.whl")
    return found


def run(wheel: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """A program that finds the wheel's package and no checkout."""
    place = wheel.parent / "installed"
    if not place.exists():
        zipfile.ZipFile(wheel).extractall(place)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(place), "PATH": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"glfa_jax", f"glfa_jax-{__version__}.dist-info"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "glfa_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources == {name for name in names if name.startswith("glfa_jax/")}


def test_its_command_knows_every_subcommand(wheel, tmp_path):
    archive = zipfile.ZipFile(wheel)
    [entry] = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "glfa-jax = glfa_jax.commands:main" in archive.read(entry).decode()
    ended = run(wheel, "-m", "glfa_jax", "--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert all(f"  {name} " in ended.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", ["cotrain", "sample"])
def test_without_a_checkout_commands_are_named_by_their_short_names(wheel, tmp_path, name):
    ended = run(wheel, "-m", "glfa_jax", name, "--help", cwd=tmp_path)
    assert ended.stdout.startswith(f"usage: glfa-jax {name} ")
    ended = run(wheel, "-m", "glfa_jax", name, "--config", "absent.yaml", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "error: absent.yaml: no such file\n"


def test_an_unknown_subcommand_is_one_sentence(wheel, tmp_path):
    ended = run(wheel, "-m", "glfa_jax", "trian", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: 'trian': no such command, must be one of prepare, look")
    assert len(ended.stderr.splitlines()) == 1
