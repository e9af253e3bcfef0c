"""Cross-subject fMRI-to-video decoding in JAX.

    import glfa_jax

    decoder = glfa_jax.load("runs/demo")
    video = decoder.decode(maps, subject="03")

What is public stands in `__all__`; the rooms below (`glfa_jax.models`, `glfa_jax.metrics`, ...) can
be imported by themselves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glfa_jax.starting import end_quietly

if TYPE_CHECKING:
    from glfa_jax.api import from_pretrained, load, prepare
    from glfa_jax.config import Config, ConfigError
    from glfa_jax.data import DataError
    from glfa_jax.data.store import Store
    from glfa_jax.decoder import Decoder
    from glfa_jax.errors import InputError
    from glfa_jax.evaluation.videos import VideoScores, score

__version__ = "0.2.0"

# Where each public name lives: imported when it is first used, so that commands start at once.
_PLACES = {
    "Config": "glfa_jax.config",
    "ConfigError": "glfa_jax.config",
    "DataError": "glfa_jax.data",
    "Decoder": "glfa_jax.decoder",
    "InputError": "glfa_jax.errors",
    "Store": "glfa_jax.data.store",
    "VideoScores": "glfa_jax.evaluation.videos",
    "from_pretrained": "glfa_jax.api",
    "load": "glfa_jax.api",
    "prepare": "glfa_jax.api",
    "score": "glfa_jax.evaluation.videos",
}

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "Decoder",
    "InputError",
    "Store",
    "VideoScores",
    "from_pretrained",
    "load",
    "prepare",
    "score",
]

end_quietly()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
