"""Trains the foundation models of the simulated study on its procedural clips.

    python -m examples.simulated --config examples/simulated/foundation.yaml

CLIP, VAE, both classifiers and the text-to-video model, in the architectures of the real ones and
small; stored as diffusers and transformers store theirs. Prints how well each works on clips it has
not seen.
"""

import sys

from examples.simulated import autoencoder, classifiers, clip_model, text_to_video, tokenizer
from examples.simulated.judging import report_samples
from examples.simulated.run import Run
from examples.simulated.settings import Foundation
from glfa_jax.cli import run_main
from glfa_jax.training.loop import use_compilation_cache, validate_unchanged
from glfa_jax.training.processes import alone_in


def main(settings: Foundation) -> None:
    use_compilation_cache()
    with alone_in(settings.run_dir):
        validate_unchanged(settings.run_dir, settings)
        run = Run(settings)
        run.write_tokenizer(tokenizer.write_tokenizer, run.out / "clip")
        vae = autoencoder.trained(run)
        clip = clip_model.trained(run)
        classifiers.train_on_frames(run)
        classifiers.train_on_videos(run)
        text_to_video.train(run, vae, clip)
        report_samples(run, "generator", "unet3d", run.folder, judges=run.out)


if __name__ == "__main__":
    sys.exit(run_main(main, command="examples.simulated", schema=Foundation, description=__doc__))
