"""Repositories on a hub: downloaded where the user says so, rejected in a sentence else."""

import shutil
import sys
from pathlib import Path

import pytest

from glfa_jax.convert import sources
from glfa_jax.convert.__main__ import command as main
from glfa_jax.convert.sources import locate
from tests.convert import test_pretrained as tiny
from tests.convert.test_pretrained import rejection

HELD = [
    *(".gitattributes", "README.md", "model_index.json", "unet/config.json"),
    *("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"),
    *("text_encoder/pytorch_model.bin", "tokenizer/merges.txt", "zeroscope/weights.pth"),
]


@pytest.fixture
def hub(tmp_path, monkeypatch) -> list:
    """A hub of one repository; what was asked of it."""
    import huggingface_hub

    asked = []
    tiny.write("vit", tmp_path / "snapshot")

    def files(repository, *, revision):
        asked.append((repository, revision))
        return HELD

    def download(repository, *, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_repository_is_downloaded_as_far_as_it_is_needed(hub, tmp_path):
    assert locate("hub:someone/video-model@v2") == tmp_path / "snapshot"
    wanted = sorted(
        name
        for name in HELD
        if name not in (".gitattributes", "README.md", "unet/diffusion_pytorch_model.bin")
    )
    assert hub == [("someone/video-model", "v2"), ("someone/video-model", "v2", wanted)]


def test_without_leave_nothing_is_downloaded(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = rejection(
        lambda: locate("someone/model"),
        "someone/model: no such file or folder",
        "allow its download with --allow-download or write hub:someone/model",
    )
    assert len(message.splitlines()) == 1
    assert hub == []
    assert locate("someone/model", allow_download=True) == tmp_path / "snapshot"
    assert [entry[:2] for entry in hub] == [("someone/model", None)] * 2


def test_what_is_here_is_never_downloaded(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "model").mkdir(parents=True)
    assert locate("someone/model", allow_download=True) == Path("someone/model")
    assert hub == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hub:model", "hub:model: must be hub:owner/name"),
        ("hub:../x/y", "must be hub:owner/name"),
        ("/absent/folder", "/absent/folder: no such file or folder"),
    ],
)
def test_names_of_no_repository_are_rejected(source, said, hub):
    rejection(lambda: locate(source, allow_download=True), said)
    assert hub == []


def test_a_failed_download_is_one_sentence(hub, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", fail)
    rejection(
        lambda: locate("hub:someone/model"),
        "hub:someone/model: cannot be downloaded (no route to the hub)",
    )


def test_the_command_imports_what_it_downloads(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["import", "--kind", "vit", "--source", "someone/vit", "--target", "ours"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: someone/vit: no such file or folder; if a repository")
    assert not (tmp_path / "ours").exists()
    assert main([*arguments, "--allow-download"]) == 0
    assert (tmp_path / "ours" / "model.safetensors").is_file()
    shutil.rmtree(tmp_path / "ours")
    assert main([*arguments[:4], "hub:someone/vit", *arguments[5:]]) == 0
    assert sources.guess_kind(tmp_path / "ours") == "vit"
