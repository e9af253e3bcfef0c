"""The configurations of the trainings of the simulated study's models."""

from pathlib import Path

from glfa_jax import config


class Models(config.Section):
    """What every training of models has."""

    name: str
    seed: config.Seed = 0
    out: Path  # folder that gets the models
    run_dir: Path
    frames: config.Positive  # that the models see of a clip
    clip_frames: config.Positive  # that it has
    size: config.Positive = 64  # height and width, pixels
    caption_tokens: config.Positive = 20
    unconditional: config.Fraction = 0.1  # share of clips without their caption
    clips: config.Positive = 8192  # encoded for the generator
    hardware: config.Hardware = config.Hardware()
    vae: config.Stage
    generator_images: config.Stage  # text to image, before text to video
    generator: config.Stage


class Foundation(Models):
    """What `foundation.yaml` holds."""

    name: str = "foundation"
    frames: config.Positive = 6
    clip_frames: config.Positive = 6
    clip: config.Stage
    image_classifier: config.Stage
    video_classifier: config.Stage


class Wan(Models):
    """What `wan.yaml` holds."""

    name: str = "wan"
    frames: config.Positive = 5  # 4 k + 1
    clip_frames: config.Positive = 10  # of which every second one is read
    judges: Path  # folder of the foundation, whose classifiers tell what samples show
    vae_images: config.Stage  # single frames, before clips
