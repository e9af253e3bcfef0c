"""The configuration of the training of the simulated study's foundation models."""

from pathlib import Path

from glfa_jax import config


class Foundation(config.Section):
    """What `foundation.yaml` holds."""

    name: str = "foundation"
    seed: config.Seed = 0
    out: Path  # folder that gets the models
    run_dir: Path
    frames: config.Positive = 6
    size: config.Positive = 64  # height and width, pixels
    caption_tokens: config.Positive = 20
    unconditional: config.Fraction = 0.1  # share of clips without their caption
    clips: config.Positive = 8192  # encoded for the generator
    hardware: config.Hardware = config.Hardware()
    vae: config.Stage
    clip: config.Stage
    image_classifier: config.Stage
    video_classifier: config.Stage
    generator_images: config.Stage  # text to image, before text to video
    generator: config.Stage
