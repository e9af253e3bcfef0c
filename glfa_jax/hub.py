"""Folders on the Hugging Face hub, through huggingface_hub.

Nothing is sent or fetched but by a call of these two; `HF_HUB_OFFLINE=1` forbids both.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from glfa_jax.errors import InputError
from glfa_jax.files import reason

NAME = r"[\w.-]+/[\w.-]+"  # of a repository, as a regular expression

T = TypeVar("T")


def upload(folder: Path, repository: str, *, private: bool, token: str | None) -> str:
    """Makes the repository where there is none, and puts the folder's files there; its address.

    Raises InputError for whatever network and hub say no to.
    """
    from huggingface_hub import HfApi

    def send() -> str:
        api = HfApi(token=token)
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Decoder made by glfa_jax"
        )
        return str(address)

    return _asked(send, f"{repository}: cannot be sent to the hub")


def download(
    repository: str,
    *,
    revision: str | None,
    what: str,
    token: str | None = None,
    wanted: Callable[[list[str]], list[str]] | None = None,
    error: type[InputError] = InputError,
) -> Path:
    """The local folder of a repository, fetched where it is not there yet.

    wanted: which of its files are needed; all if left out. Raises `error`, which begins with
    `what`, for whatever network and hub say no to.
    """
    import huggingface_hub

    options: dict[str, Any] = {"revision": revision}
    if token is not None:
        options["token"] = token

    def fetch() -> Path:
        files = {}
        if wanted is not None:
            held = huggingface_hub.list_repo_files(repository, **options)
            files["allow_patterns"] = wanted(held)
        return Path(huggingface_hub.snapshot_download(repository, **options, **files))

    return _asked(fetch, what, error=error)


def validate_name(repository: str) -> None:
    """For before the work that comes before sending and fetching."""
    if not re.fullmatch(NAME, repository):
        raise InputError(f"{repository}: must be a folder, or owner/name on the hub")


def _asked(call: Callable[[], T], what: str, *, error: type[InputError] = InputError) -> T:
    try:
        return call()
    except Exception as cause:  # of the network, of the hub, of the disk: many unrelated classes
        raise error(f"{what} ({reason(cause)})") from None
