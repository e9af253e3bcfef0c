"""Clips as latents with their captions, from which both text-to-video models learn."""

from typing import Any, Literal

import jax
import numpy as np

from examples.simulated.run import Run, draw
from glfa_jax.convert import pretrained
from glfa_jax.simulate import stimuli

_WORDINGS = 4  # captions of a clip


class CaptionedLatents:
    """What an autoencoder makes of many clips; encoded once, and kept in the run's folder."""

    def __init__(self, run: Run, vae: pretrained.Pretrained):
        rng = np.random.default_rng(run.settings.seed)
        scenes = draw(rng, run.settings.clips)
        self._run = run
        self._captions = [
            [stimuli.caption(scene, rng) for _ in range(_WORDINGS)] for scene in scenes
        ]
        cache = run.settings.run_dir / "latents.npz"
        if not cache.exists():
            encode = jax.jit(lambda x: vae.module.apply(vae.variables, x, method="encode"))
            parts = []
            for start in range(0, len(scenes), 64):
                posterior: Any = jax.device_get(encode(run.videos(scenes[start : start + 64])))
                parts.append((posterior.mean, np.exp(0.5 * posterior.log_variance)))
            means, deviations = (np.concatenate(part) for part in zip(*parts, strict=True))
            aside = cache.with_suffix(".partial.npz")
            np.savez(aside, mean=means, deviation=deviations)
            aside.rename(cache)
        with np.load(cache) as arrays:
            self._means, self._deviations = arrays["mean"], arrays["deviation"]

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        *,
        one_frame: Literal["any", "first"] | None = None,
    ) -> dict:
        """Latents drawn from the posteriors of some clips, and tokens of their captions.

        one_frame: of every clip the same frame, drawn anew for every batch, or the first, which
        alone is an image where the others hold several frames of video each. A share of the clips,
        `unconditional`, has no caption.
        """
        frames = self._means.shape[1]
        picks = rng.integers(len(self._means), size=clips)
        drop = rng.random(clips) < self._run.settings.unconditional
        texts = [
            "" if dropped else self._captions[i][rng.integers(_WORDINGS)]
            for i, dropped in zip(picks, drop, strict=True)
        ]
        first = rng.integers(frames) if one_frame == "any" else 0
        window = np.s_[picks, first : first + (1 if one_frame else frames)]
        noise = rng.standard_normal(self._means[window].shape, np.float32)
        latents = self._means[window] + self._deviations[window] * noise
        return {"latents": latents, "tokens": self._run.tokenize(texts)}
