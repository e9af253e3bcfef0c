"""Decoder folders on the Hugging Face hub, through huggingface_hub.

Nothing is sent or fetched but by a call of these two; `HF_HUB_OFFLINE=1` forbids both.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from glfa_jax.errors import InputError
from glfa_jax.files import reason

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

T = TypeVar("T")


def upload(folder: Path, repository: str, *, private: bool, token: str | None) -> str:
    """Makes the repository where there is none, and puts the folder's files there; its address.

    Raises InputError for a name that is none, and for whatever network and hub say no to.
    """
    from huggingface_hub import HfApi

    _validate_name(repository)

    def send() -> str:
        api = HfApi(token=token)
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Decoder made by glfa_jax"
        )
        return str(address)

    return _asked(send, f"{repository}: cannot be sent to the hub")


def download(repository: str, *, revision: str | None, token: str | None) -> Path:
    """The local folder of a repository, fetched where it is not there yet. Raises InputError."""
    from huggingface_hub import snapshot_download

    _validate_name(repository)
    return Path(
        _asked(
            lambda: snapshot_download(repository, revision=revision, token=token),
            f"{repository}: is no folder here and cannot be downloaded",
        )
    )


def _validate_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository}: must be a folder, or owner/name on the hub")


def _asked(call: Callable[[], T], what: str) -> T:
    try:
        return call()
    except Exception as error:  # of the network, of the hub, of the disk: many unrelated classes
        raise InputError(f"{what} ({reason(error)})") from None
