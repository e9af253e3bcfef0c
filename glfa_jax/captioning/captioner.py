"""An image captioner of transformers: frames in, a sentence each out.

The one part of the package that needs PyTorch, which the extra `caption` installs; nothing imports
it before it is asked for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from glfa_jax import files, hub
from glfa_jax.errors import InputError, Terminated

WEIGHTS = (".safetensors", ".bin")  # the first that there are
BESIDE = (".json", ".txt", ".model", ".jinja")  # configuration, vocabulary


@dataclass(frozen=True)
class Captioner:
    """A captioner, and how it writes.

    name: the model, and which state of it: of one on the hub the revision, of a folder the
        beginning of the SHA-256 of what is in it.
    beams: of the search for the most likely caption; 1 takes the most likely token each time.
    tokens: at most, of a caption.
    """

    name: str
    beams: int
    tokens: int
    _model: Any = field(repr=False)
    _processor: Any = field(repr=False)

    @classmethod
    def load(
        cls, model: str, *, revision: str | None = None, beams: int = 1, tokens: int = 30
    ) -> "Captioner":
        """model: a folder, or owner/name on the hub; in float32, on a GPU where there is one.

        Raises InputError in one sentence where it cannot be had or is no image captioner.
        """
        try:
            import torch
        except ImportError:
            raise InputError(
                "captioning needs PyTorch; pip install 'glfa_jax[caption]' installs it"
            ) from None
        import transformers

        folder, name = _found(model, revision)
        transformers.logging.set_verbosity_error()  # what matters is checked here
        transformers.logging.disable_progress_bar()
        given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = transformers.AutoProcessor.from_pretrained(str(folder), **given)
            read: Any = transformers.AutoModelForImageTextToText.from_pretrained
            loaded, report = read(
                str(folder), dtype=torch.float32, output_loading_info=True, **given
            )
            if lacking := sorted(report["missing_keys"]):
                raise InputError(f"{folder}: lacks {len(lacking)} weights, such as {lacking[0]}")
            device = "cuda" if torch.cuda.is_available() else "cpu"
            found = cls(name, beams, tokens, loaded.eval().to(device), processor)
            found(
                [np.full((64, 64, 3), 128, np.uint8)]
            )  # a model of another kind, and some damage, show only in use
        except (InputError, KeyboardInterrupt, Terminated, MemoryError):
            raise
        except BaseException as error:  # a library in Rust may panic, which is no Exception
            raise InputError(
                f"{folder}: holds no image captioner of transformers ({files.reason(error)})"
            ) from None
        return found

    def __call__(self, images: Sequence[UInt8[ndarray, "h w 3"]]) -> list[str]:
        """A caption an image, in one line; the images go through the model together."""
        import torch

        try:
            with torch.inference_mode():
                given = self._processor(images=list(images), return_tensors="pt")
                written = self._model.generate(
                    **given.to(self._model.device),
                    do_sample=False,
                    num_beams=self.beams,
                    max_new_tokens=self.tokens,
                )
        except torch.OutOfMemoryError:
            raise InputError(
                f"--batch: {len(images)} frames at a time need more memory than the GPU has"
            ) from None
        captions = self._processor.batch_decode(written, skip_special_tokens=True)
        return [" ".join(caption.split()) for caption in captions]


def _found(model: str, revision: str | None) -> tuple[Path, str]:
    """The folder of a model, and its name with the state that it is in."""
    folder = Path(model)
    if folder.is_dir():
        files.verify_checksums(folder)
        content = hashlib.sha256(files.checksums_of(folder).encode()).hexdigest()
        return folder, f"{folder.resolve().name}@{content[:12]}"
    hub.validate_name(model)
    folder = hub.download(
        model,
        revision=revision,
        wanted=_wanted,
        what=f"{model}: is no folder here, and cannot be fetched from the hub",
    )
    return folder, f"{model}@{folder.name[:12]}"


def _wanted(held: list[str]) -> list[str]:
    """Of a repository's files, those that transformers reads with PyTorch."""
    top = [name for name in held if "/" not in name]
    ending = next((e for e in WEIGHTS if any(name.endswith(e) for name in top)), WEIGHTS[0])
    return [name for name in top if name.endswith((ending, *BESIDE))]
