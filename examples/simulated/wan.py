"""Trains a small Wan for the simulated study on its procedural clips.

    python -m examples.simulated.wan --config examples/simulated/wan.yaml

Autoencoder, text encoder and transformer in the architectures of Wan 2.1, stored as diffusers and
transformers store theirs. CLIP and classifiers are those of examples/simulated/foundation.yaml.
Prints how well it works on clips it has not seen, and how well the foundation's UNet3D does at as
many frames.
"""

import sys

from examples.simulated import t5_tokenizer, wan_autoencoder, wan_transformer
from examples.simulated.judging import report_samples, report_true_clips
from examples.simulated.run import Run
from examples.simulated.settings import Wan
from glfa_jax.cli import run_main
from glfa_jax.system import GENERATOR
from glfa_jax.training.loop import use_compilation_cache, validate_unchanged
from glfa_jax.training.processes import alone_in


def main(settings: Wan) -> None:
    use_compilation_cache()
    judges = settings.judges
    with alone_in(settings.run_dir):
        validate_unchanged(settings.run_dir, settings)
        run = Run(settings)
        run.write_tokenizer(t5_tokenizer.write_tokenizer)
        vae = wan_autoencoder.trained(run)
        wan_transformer.train(run, vae)
        report_samples(run, "generator", "wan", run.folder, judges=judges)
        report_samples(run, "unet3d", "unet3d", judges / GENERATOR, judges=judges)
        report_true_clips(run, judges=judges)


if __name__ == "__main__":
    sys.exit(run_main(main, command="examples.simulated.wan", schema=Wan, description=__doc__))
