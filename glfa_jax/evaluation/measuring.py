"""The trained model of a run, ready to score changed maps of its test clips."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from glfa_jax import system
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.video import unit_range
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.evaluation.models import PREDICTORS, compiled, in_batches
from glfa_jax.explain.scores import (
    CAPTION,
    EMBEDDED,
    VIDEO,
    Noised,
    Scoring,
    beyond_mean,
    computing,
)
from glfa_jax.explain.scores import noised as noised_clips
from glfa_jax.trained.model import load_model
from glfa_jax.trained.sampler import placed_once


class Ready(NamedTuple):
    """The first arguments of what `explain.measure` does; rows are filled up to a whole batch, so
    that one compiled program serves all."""

    score: Scoring
    given: dict[str, Any]
    maps: Float[np.ndarray, "b w height width"]


class Measurer:
    """average: what cortex is replaced by, the mean window of all training samples as it is before
    any alignment, zero off the cortex. With a layer that all subjects share, or none, its encoding
    is what samples are guided away from."""

    def __init__(self, test: HeldOut, names: tuple[str, ...], *, cortex: Bool[np.ndarray, "h w"]):
        """names: of scores. Raises InputError where CLIP is none of the run's joint space."""
        settings = test.settings
        self._test, self._names = test, names
        self._model = load_model(settings)
        average = test.trained.average(subjects=settings.protocol.train_subjects)
        self.average = np.where(cortex, average, 0).astype(np.float32)
        hardware = settings.hardware
        dtype = jnp.dtype(hardware.compute_dtype)
        self._generator = self._model.generator.computing(dtype=dtype, remat=hardware.remat)
        encoders = test.encoders(self._model)
        placed = placed_once(
            {subject: encoder.variables for subject, encoder in encoders.items()},
            lambda leaves: jax.device_put(in_memory(leaves)),
        )
        options = (names, self._generator, hardware.attention)
        self._encoders = {
            subject: (Scoring(computing(encoder.module, hardware), *options), placed[subject])
            for subject, encoder in encoders.items()
        }
        self._towards: dict[str, dict[str, np.ndarray]] = {}
        if VIDEO in names:
            self._denoiser, self._codec = (
                jax.device_put(in_memory(params))
                for params in (self._model.denoiser, self._model.codec)
            )
        self._embed = (
            _Embedder(test, width=self._model.encoder.module.clip_dim)
            if set(names) & set(EMBEDDED)
            else None
        )

    def ready(self, subject: str, clips: list[int]) -> Ready:
        """clips: test clips of the subject, a batch or a part of one."""
        scoring, variables = self._encoders[subject]
        size = self._test.settings.evaluation.batch_size
        filled = np.resize(clips, size).tolist()
        maps = self._test.maps(subject, clips).astype(np.float32)
        maps = np.resize(maps, (size, *maps.shape[1:]))
        given = scoring.given(
            variables,
            maps,
            average=self.average,
            towards=self._targets(subject, filled),
            video=self._noised(filled) if VIDEO in self._names else None,
        )
        return Ready(scoring, given, maps)

    def _targets(self, subject: str, clips: list[int]) -> dict[str, np.ndarray]:
        if self._embed is None:
            return {}
        every = self._test.clips(subject)
        if subject not in self._towards:
            self._towards[subject] = {
                name: beyond_mean(self._embed(name, subject))
                for name in self._names
                if name in EMBEDDED
            }
        rows = [every.index(clip) for clip in clips]
        return {name: found[rows] for name, found in self._towards[subject].items()}

    def _noised(self, clips: list[int]) -> Noised:
        settings, store = self._test.settings, self._test.store
        video = unit_range(store.video("test", clips))
        return noised_clips(
            self._generator,
            self._denoiser,
            _encoded(self._codec, video, generator=self._generator),
            clip=np.array(clips),
            seed=settings.seed,
            draws=settings.explain.draws,
        )


@partial(jax.jit, static_argnames="generator")
def _encoded(codec: Any, video: Any, *, generator: Any) -> Any:
    return generator.encode(codec, video)


class _Embedder:
    """Embeddings of true clips in CLIP's joint space, of unit length."""

    def __init__(self, test: HeldOut, *, width: int):
        settings, one = test.settings, PREDICTORS[system.CLIP]
        self._test, size = test, settings.evaluation.batch_size
        loaded = one.load(settings.foundation, settings.data.frames)
        found = loaded.model.module.projection_dim
        if found != width:
            raise InputError(
                f"{settings.foundation / system.CLIP}: embeds in {found} values, "
                f"but the run's contrastive head in {width}; must be the CLIP it was trained with, "
                "or explain.scores without image and caption"
            )
        of_images, of_captions = compiled(one, loaded)
        self._see = in_batches(of_images, size=size * settings.data.frames)
        self._read = in_batches(of_captions, size=size)

    def __call__(self, name: str, subject: str) -> Float[np.ndarray, "n e"]:
        """Of all of a subject's clips."""
        if name == CAPTION:
            (found,) = self._read(self._test.tokens(self._test.clips(subject)))
            return _unit(found)
        return np.concatenate([self._frames(clips) for clips in self._test.batches(subject)])

    def _frames(self, clips: list[int]) -> np.ndarray:
        """Mean over the frames of a clip."""
        video = self._test.store.video("test", clips)
        (frames,) = self._see(video.reshape(-1, *video.shape[2:]))
        return _unit(_unit(frames).reshape(*video.shape[:2], -1).mean(1))


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
