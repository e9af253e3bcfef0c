"""What the trainings of the simulated study's models share: clips, the loop, files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from examples.simulated.settings import Models
from glfa_jax.convert import pretrained
from glfa_jax.data.captions import Tokenizer
from glfa_jax.data.video import EDGE
from glfa_jax.files import write_atomically
from glfa_jax.simulate import stimuli
from glfa_jax.training.loop import train
from glfa_jax.training.optim import OTHERWISE, Group

WIDTH = 64  # of the caption tokens, and so of the generator's condition
ENCODER = {
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
}
# Draws that no training stream uses.
HELD_OUT_SEED = 2**31 - 1

# Of a clip, as of the simulated studies.
SECONDS = 2.0

_ALL = (Group(OTHERWISE, 1.0),)

Settings = TypeVar("Settings", bound=Models)


def draw(rng: np.random.Generator, clips: int) -> list[stimuli.Scene]:
    """Random scenes."""
    return [stimuli.sample_scene(rng) for _ in range(clips)]


def held_out(clips: int) -> list[stimuli.Scene]:
    """Scenes that no training draws."""
    return draw(np.random.default_rng(HELD_OUT_SEED), clips)


def labels(label: Callable[[stimuli.Scene], int], scenes: list[stimuli.Scene]) -> np.ndarray:
    """The class of each scene."""
    return np.array([label(scene) for scene in scenes], np.int32)


class Stream:
    """Endless batches, each a pure function of seed and position."""

    def __init__(self, seed: int, make: Callable[[np.random.Generator], Any]):
        self._seed, self._make, self._next = seed, make, 0

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Any:
        rng = np.random.default_rng([self._seed, self._next])
        self._next += 1
        return self._make(rng)

    def get_state(self) -> dict[str, int]:
        return {"next": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        self._next = state["next"]


class Run(Generic[Settings]):
    """One run: trains what is missing and stores each model when it is done."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.out = settings.out
        self.folder = settings.out / "text-to-video"

    def write_tokenizer(self, write: Callable, *others: Path) -> None:
        """Learns the generator's tokenizer from captions; `others`: folders that share it."""
        rng = np.random.default_rng(self.settings.seed)
        texts = [stimuli.caption(stimuli.sample_scene(rng), rng) for _ in range(20_000)]
        for folder in (self.folder / "tokenizer", *others):
            write(texts, folder, max_length=self.settings.caption_tokens)
        self.tokenize = Tokenizer.load(self.folder / "tokenizer")

    def videos(self, scenes: list[stimuli.Scene]) -> np.ndarray:
        """(b, f, h, w, 3) in [-1, 1]."""
        return _signed([self._render(scene, self.shown) for scene in scenes])

    def images(self, scenes: list[stimuli.Scene], rng: np.random.Generator) -> np.ndarray:
        """One random frame of each clip, (b, h, w, 3) in [-1, 1]."""
        picks = rng.integers(self.settings.frames, size=len(scenes))
        return _signed(
            [
                self._render(scene, [self.shown[pick]])[0]
                for scene, pick in zip(scenes, picks, strict=True)
            ]
        )

    @property
    def shown(self) -> list[int]:
        """Frames of a clip, each in the middle of its share, as `data.video` reads them."""
        share = self.settings.clip_frames / self.settings.frames
        return [int((i + 0.5) * share + EDGE) for i in range(self.settings.frames)]

    def _render(self, scene: stimuli.Scene, only: list[int]) -> np.ndarray:
        frames, size = self.settings.clip_frames, self.settings.size
        rate = frames / SECONDS
        return stimuli.render(scene, frames=frames, size=size, frame_rate=rate, only=only)

    def train(
        self,
        name: str,
        kind: str,
        module: Any,
        loss_fn: Callable,
        make: Callable,
        *,
        frozen: Any = (),
        init: dict | Callable[[jax.Array], dict] | None = None,
        adjust: Callable[[dict], dict] = lambda params: params,
    ) -> dict:
        """Trains a module's parameters from `init`, or from random ones after `adjust`."""
        state = train(
            name=name,
            folder=self.settings.run_dir / name,
            stage=getattr(self.settings, name),
            seed=self.settings.seed,
            init=init or (lambda key: adjust(self.initial(kind, module, key))),
            frozen=frozen,
            loss_fn=loss_fn,
            groups=_ALL,
            batches=Stream(self.settings.seed, make),
            fingerprint={},
            hardware=self.settings.hardware,
        )
        return jax.device_get(state.params)

    def initial(self, kind: str, module: Any, key: jax.Array) -> dict:
        """Random parameters of a module."""
        inputs, keywords = pretrained.KINDS[kind].example(module)
        return module.init(key, *inputs, **keywords)["params"]

    def save(self, kind: str, folder: Path, params: dict, settings: dict) -> pretrained.Pretrained:
        """Stores in half precision and gives back what was stored, so that it is what is tested."""
        pretrained.save(kind, folder, params, config=settings, dtype=np.float16)
        return pretrained.load(kind, folder)

    def write_preprocessor(self, folder: Path, kind: str) -> None:
        side = {"height": self.settings.size, "width": self.settings.size}
        content = {
            "image_processor_type": kind,
            "do_resize": True,
            "size": side,
            "resample": 2,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
        write_json(folder / "preprocessor_config.json", content)

    def report(self, name: str, **numbers: float) -> None:
        """Prints the numbers and keeps them beside the models."""
        path = self.out / "results.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        results[name] = {key: round(value, 4) for key, value in numbers.items()}
        write_json(path, results)
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))


def _signed(images: list[np.ndarray]) -> np.ndarray:
    """uint8 to float32 in [-1, 1]."""
    return np.stack(images).astype(np.float32) / 127.5 - 1


def write_json(path: Path, content: dict) -> None:
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_pipeline(folder: Path, schedule: dict, parts: dict) -> None:
    """What makes the models in `folder` a pipeline of diffusers."""
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", schedule)
    write_json(folder / "model_index.json", parts)
