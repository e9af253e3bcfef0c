"""Puts the parts of a configured system together: modules of the right size, pretrained weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glfa_jax import alignments, config, metrics
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import DirectoryError, read_config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.captions import Tokenizer
from glfa_jax.errors import InputError
from glfa_jax.files import read_object
from glfa_jax.generators import GENERATORS, Generator
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.lea import Lea
from glfa_jax.ops.local_conv import Box
from glfa_jax.ops.preprocess import Preprocessor

# Folders of the foundation.
GENERATOR, CLIP = "text-to-video", "clip"
VIDEO_CLASSIFIER, IMAGE_CLASSIFIER = "video-classifier", "image-classifier"


@dataclass(frozen=True)
class EvaluationModel:
    """A pretrained model with the preprocessing it wants; called on RGB in [-1, 1]."""

    model: Pretrained
    preprocess: Preprocessor


def asked_metrics(evaluation: config.Evaluation) -> tuple[metrics.Metric, ...]:
    """Raises InputError where `evaluation.metrics` holds a name that there is not."""
    return metrics.chosen(evaluation.metrics, options=dict(evaluation))


def check_foundation(settings: config.Config) -> None:
    """Rejects a foundation that is not there or does not fit, from its config.json files alone,
    and metrics that there are not."""
    asked_metrics(settings.evaluation)
    check_generator(settings)
    read_config(settings.foundation / CLIP)
    models = {
        VIDEO_CLASSIFIER: pretrained.configured(
            "video_mae", settings.foundation / VIDEO_CLASSIFIER
        ),
        IMAGE_CLASSIFIER: pretrained.configured("vit", settings.foundation / IMAGE_CLASSIFIER),
    }
    for name, model in models.items():
        classes = model.num_labels
        if max(settings.evaluation.ways) > classes - 2:
            raise InputError(
                f"evaluation.ways: {max(settings.evaluation.ways)}, but {name} knows {classes} "
                "classes: three of them are the true ones, the rest must suffice for the draw"
            )
    tubelet = models[VIDEO_CLASSIFIER].tubelet_size
    if settings.data.frames % tubelet:
        raise InputError(
            f"data.frames: {settings.data.frames}, must be a multiple of {tubelet}, the "
            f"tubelet_size of {VIDEO_CLASSIFIER}"
        )


def check_generator(settings: config.Config) -> Generator:
    """The generator, if it can do what the configuration asks of it; else InputError."""
    found, data = generator(settings), settings.data
    if found.condition_width != settings.encoder.width:
        raise InputError(
            f"encoder.width: {settings.encoder.width}, but the generator in {found.folder} is "
            f"conditioned on tokens of width {found.condition_width}"
        )
    found.latent_shape(data.frames, *data.resolution)
    for key, given, known in (
        ("cotrain.trainable", settings.cotrain.trainable, found.trainable),
        ("evaluation.sampler", settings.evaluation.sampler, found.samplers),
    ):
        if given not in known:
            choices = " or ".join(map(repr, known))
            raise InputError(
                f"{key}: must be {choices} with the generator {settings.generator}, "
                f"got {given!r:.60}"
            )
    for key, asked in (
        ("evaluation", (settings.evaluation.sampling_steps,)),
        ("sweep", settings.sweep.sampling_steps or ()),
    ):
        validate_steps(f"{key}.sampling_steps", max(asked, default=0), found)
    return found


def validate_steps(key: str, steps: int, generator: Generator) -> None:
    """Sampling takes fewer steps than training; InputError names the option `key`."""
    if steps >= (most := generator.training_steps):
        raise InputError(f"{key}: {steps}, must be below the {most} of training")


def generator(settings: config.Config, *, folder: Path | None = None) -> Generator:
    """The generator as it is trained and sampled from; reads no weights.

    folder: where it lies, the foundation's if left out.

    Raises InputError where it is not there or not what the configuration says.
    """
    found = GENERATORS.named(settings.generator, key="generator").open(
        folder or settings.foundation / GENERATOR
    )
    return found.as_trained(settings.cotrain) if settings.cotrains else found


def load_evaluation_model(
    foundation: Path, kind: str, name: str, **options: Any
) -> EvaluationModel:
    """CLIP or a classifier: `kind` and `options` as in convert.pretrained, `name` its folder."""
    folder = foundation / name
    path = folder / "preprocessor_config.json"
    preprocessing = read_object(path, error=DirectoryError)
    try:
        preprocess = Preprocessor.from_config(preprocessing)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return EvaluationModel(pretrained.load(kind, folder, **options), preprocess)


def load_video_classifier(foundation: Path, *, frames: int) -> EvaluationModel:
    """frames: of a clip; its positions are computed, so any multiple of a tubelet does."""
    loaded = load_evaluation_model(foundation, "video_mae", VIDEO_CLASSIFIER)
    module = loaded.model.module.clone(num_frames=frames)
    return replace(loaded, model=loaded.model._replace(module=module))


def load_clip(foundation: Path, **options: Any) -> EvaluationModel:
    return load_evaluation_model(foundation, "clip", CLIP, **options)


def tokenizer(settings: config.Config) -> Tokenizer:
    """The tokenizer of the generator's text encoder, which CLIP shares."""
    return Tokenizer.load(settings.foundation / GENERATOR / "tokenizer")


def _transformer(settings: config.Config) -> dict[str, Any]:
    """What all models share that read fMRI maps."""
    encoder = settings.encoder
    return {
        "height": settings.data.map_size,
        "width": settings.data.map_size,
        "patch_size": encoder.patch_size,
        "dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": encoder.num_heads,
        "mlp_ratio": encoder.mlp_ratio,
    }


def autoencoder(settings: config.Config) -> FmriAutoencoder:
    return FmriAutoencoder(
        **_transformer(settings),
        decoder_depth=settings.encoder.decoder_depth,
        latent=settings.encoder.latent,
        dropout=settings.pretrain.dropout,
    )


def fmri_encoder(
    settings: config.Config,
    *,
    clip_dim: int,
    tokens: int,
    dropout: float,
    aligned: bool,
    box: Box | None = None,
) -> FmriEncoder:
    """`aligned`: with the alignment as configured (stage 2 and after) or without (before).

    box: where the cortex lies on the maps; the layer costs less for knowing it.
    """
    return FmriEncoder(
        **_transformer(settings),
        window=settings.data.window,
        tokens=tokens,
        clip_dim=clip_dim,
        hidden_tokens=settings.conditioning.hidden_tokens,
        conditioning_heads=settings.conditioning.num_heads,
        head=settings.conditioning.head,
        **alignments.encoder_fields(settings, aligned=aligned),
        dropout=dropout,
        box=box,
    )


def lea(settings: config.Config, *, tokens: int, token_dim: int, clip_dim: int) -> Lea:
    return Lea(
        **_transformer(settings),
        window=settings.data.window,
        tokens=tokens,
        token_dim=token_dim,
        clip_dim=clip_dim,
    )


def model_folder(settings: config.Config, stage: str) -> Path:
    """Where a finished stage leaves its model for the next stage, for evaluation, for others."""
    return stage_folder(settings, stage) / "model"


def stage_folder(settings: config.Config, stage: str) -> Path:
    """Of a training stage; what is fitted to a new subject may lie elsewhere than the run."""
    fitted = stage.partition("/")[0] == "adapt"
    return (_results(settings) if fitted else settings.run_dir) / stage


def _results(settings: config.Config) -> Path:
    return settings.results_dir or settings.run_dir


def results_folder(settings: config.Config) -> Path:
    """Where samples, scores and report go: `results_dir` or the run's folder, or one of its own in
    it for another store, and in either one for fitted layers, laid out as a run's."""
    minutes, folder = settings.evaluation.adapted_minutes, _results(settings) / of_store(settings)
    return folder if minutes is None else folder / f"adapted-{minutes:g}min"


def of_store(settings: config.Config) -> str:
    """The folder of what belongs to subjects of `protocol.test_store`; empty without one."""
    other = settings.protocol.test_store
    return "" if other is None else f"on-{other.stem}"


def save_own(kind: str, folder: Path, module: Any, params: Any) -> None:
    """Stores one of this project's own models as safetensors under the official names."""
    pretrained.save(kind, folder, params, config=pretrained.own_config(module))
