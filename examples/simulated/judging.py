"""From captions alone: do the classifiers see in the samples what the captions say?"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from examples.simulated.run import Run, held_out, labels
from glfa_jax import system
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.captions import Tokenizer
from glfa_jax.diffusion.guidance import guided
from glfa_jax.generators import GENERATORS, Generator
from glfa_jax.simulate import stimuli

CLIPS = 64
_GUIDANCE, _STEPS = 5.0, 25


def report_samples(run: Run, name: str, kind: str, folder: Path, *, judges: Path) -> None:
    """Reports how many samples of captions that nothing was trained on are what these say.

    kind: of generator. folder: its own. judges: that of the classifiers.
    """
    scenes = held_out(CLIPS)
    captions = [stimuli.caption(scene) for scene in scenes]
    generator = GENERATORS[kind].open(folder)
    video = _sampled(run, generator, captions)
    run.report(name, **_recognised(video, scenes, judges), chance=1 / 8, clips=CLIPS)
    np.savez_compressed(
        run.settings.run_dir / f"{name}_samples.npz",
        video=np.round((video + 1) * 127.5).astype(np.uint8),
        captions=captions,
    )


def report_true_clips(run: Run, *, judges: Path) -> None:
    """Reports what the classifiers see in the clips themselves, the most there is to reach."""
    scenes = held_out(CLIPS)
    run.report("true_clips", **_recognised(run.videos(scenes), scenes, judges), clips=CLIPS)


def _sampled(run: Run, generator: Generator, captions: list[str]) -> np.ndarray:
    """(b, f, h, w, 3) in [-1, 1]."""
    settings = run.settings
    tokenize = Tokenizer.load(generator.folder / "tokenizer", length=settings.caption_tokens)
    text = in_memory(generator.load_text_encoder(compute_dtype=jnp.float32))
    denoiser, codec = in_memory((generator.load(), generator.load_codec()))
    shape = generator.latent_shape(settings.frames, settings.size, settings.size)

    @jax.jit
    def generate(key):
        encode = partial(text.module.apply, text.variables)
        denoise = guided(
            partial(generator.denoise, denoiser),
            condition=encode(tokenize(captions)).hidden,
            negative=encode(tokenize([""])).hidden,
            scale=_GUIDANCE,
        )
        noise = jax.random.normal(key, (len(captions), *shape))
        latents = generator.sample(denoise, noise, steps=_STEPS, method=generator.samplers[0])
        return jnp.clip(generator.decode(codec, latents), -1, 1)

    return np.asarray(generate(jax.random.key(settings.seed)))


def _recognised(video: np.ndarray, scenes: list[stimuli.Scene], judges: Path) -> dict[str, float]:
    """Shares of clips whose category, motion and colour the classifiers see."""
    of_videos = system.load_video_classifier(judges, frames=video.shape[1])
    of_frames = system.load_evaluation_model(judges, "vit", system.IMAGE_CLASSIFIER)

    def classes(judge: system.EvaluationModel, x: np.ndarray) -> np.ndarray:
        model = in_memory(judge.model)
        return np.asarray(jax.jit(model.module.apply)(model.variables, x)).argmax(-1)

    seen, wanted = classes(of_videos, video), labels(stimuli.video_label, scenes)
    frame, colour = classes(of_frames, video[:, 2]), labels(stimuli.frame_label, scenes)
    return {
        "category": float((seen // 8 == wanted // 8).mean()),
        "motion": float((seen % 8 == wanted % 8).mean()),
        "colour": float((frame % 8 == colour % 8).mean()),
    }
