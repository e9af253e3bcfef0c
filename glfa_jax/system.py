"""Puts the parts of a configured system together: modules of the right size, pretrained weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from glfa_jax import alignments, config, metrics
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import DirectoryError, read_config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.captions import Tokenizer, is_of_t5
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
_KINDS = {CLIP: "clip", VIDEO_CLASSIFIER: "video_mae", IMAGE_CLASSIFIER: "vit"}
_PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class EvaluationModel:
    """A pretrained model with the preprocessing it wants.

    preprocess: takes images (..., height, width, 3) as scoring has them, uint8 from 0 to 255, and
        as training has them, floating point in [-1, 1].
    """

    model: Pretrained
    preprocess: Preprocessor


def asked_metrics(evaluation: config.Evaluation) -> tuple[metrics.Metric, ...]:
    """Raises InputError where `evaluation.metrics` holds a name that there is not."""
    return metrics.chosen(evaluation.metrics, options=dict(evaluation))


def check_foundation(settings: config.Config) -> None:
    """Rejects what any stage, sampling or scoring would reject of the foundation, in seconds.

    Read are configurations, preprocessors, the tokenizer, and of weights the headers: every tensor
    is there with its shape. Metrics that there are not are rejected as well.
    """
    asked_metrics(settings.evaluation)
    found = check_generator(settings)
    models = {name: _check_configuration(settings, kind, name) for name, kind in _KINDS.items()}
    for name in (VIDEO_CLASSIFIER, IMAGE_CLASSIFIER):
        classes = models[name].num_labels
        if max(settings.evaluation.ways) > classes - 2:
            raise InputError(
                f"evaluation.ways: {max(settings.evaluation.ways)}, but {name} knows {classes} "
                "classes: three of them are the true ones, the rest must suffice for the draw"
            )
    tubelet = models[VIDEO_CLASSIFIER].tubelet_size
    if settings.data.frames < tubelet:
        raise InputError(
            f"data.frames: {settings.data.frames}, must be at least {tubelet}, the tubelet_size "
            f"of {VIDEO_CLASSIFIER}"
        )
    tokenizer(settings)
    if reads_captions := _reads_captions(settings):
        caption_tokenizer(settings, found)
    found.validate_weights(model=_denoiser_of(settings), text_encoder=reads_captions)
    for name, kind in _KINDS.items():
        pretrained.validate_weights(kind, settings.foundation / name)


def _denoiser_of(settings: config.Config) -> Path | None:
    """Where the denoiser lies that is read next; None for the foundation's."""
    if not settings.cotrains:
        return None
    finished = model_folder(settings, "cotrain")
    return finished if finished.is_dir() else settings.cotrain.generator_from


def _reads_captions(settings: config.Config) -> bool:
    """Whether a stage to come needs what the generator's text encoder makes of captions."""
    stage = "lea" if settings.method == "lea" else "contrast"
    trains = stage not in settings.without and not model_folder(settings, stage).is_dir()
    return trains and (stage == "lea" or bool(settings.contrast.token_scale))


def _check_configuration(settings: config.Config, kind: str, name: str) -> Any:
    """The module of an evaluation model, if its preprocessor makes of frames what it takes."""
    folder = settings.foundation / name
    module = pretrained.configured(kind, folder)
    preprocess = preprocessor(folder, kind)
    side = (module.vision_model if kind == "clip" else module).image_size
    frame = jax.ShapeDtypeStruct((*settings.data.resolution, 3), np.uint8)
    made = jax.eval_shape(preprocess, frame).shape[:2]
    if made != (side, side):
        raise InputError(
            f"{folder / _PREPROCESSOR}: makes images of {made} of frames of data.resolution "
            f"{settings.data.resolution}, but the model takes {(side, side)}"
        )
    return module


def check_generator(settings: config.Config) -> Generator:
    """The generator, if it can do what the configuration asks of it; else InputError."""
    found, data = generator(settings), settings.data
    tokens, longest = condition_of(settings, found)["tokens"], found.longest_caption
    compared = settings.method == "lea" or settings.contrast.token_scale
    if compared and longest is not None and tokens > longest:
        raise InputError(
            f"conditioning.tokens: {tokens}, must be at most {longest} with method lea and with "
            "contrast.token_scale, which compare them with captions', of which there are no more"
        )
    frames, *_ = found.latent_shape(data.frames, *data.resolution)
    if frames % (devices := settings.hardware.mesh.frame):
        raise InputError(
            f"hardware.mesh.frame: {devices} is no divisor of the {frames} frames of latents that "
            f"data.frames {data.frames} make"
        )
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
    if (kind := settings.cotrain.frozen_kernels) is not None and not found.equal:
        raise InputError(
            f"cotrain.frozen_kernels: {kind}, cannot be used with the generator "
            f"{settings.generator}, which has no blocks of equal shape"
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

    folder: where it lies, if not where the configuration says.

    Raises InputError where it is not there or not what the configuration says.
    """
    kind = GENERATORS.named(settings.generator, key="generator")
    place = folder or generator_folder(settings)
    if not (place / kind.part).is_dir():
        for other in GENERATORS.values():
            if (place / other.part).is_dir():
                raise InputError(
                    f"{place}: holds no generator {kind.name} (there is no folder {kind.part}), "
                    f"but one that generator: {other.name} reads"
                )
    found = kind.open(place)
    return found.as_trained(settings.cotrain) if settings.cotrains else found


def generator_folder(settings: config.Config) -> Path:
    return settings.generator_folder or settings.foundation / GENERATOR


def load_evaluation_model(
    foundation: Path, kind: str, name: str, **options: Any
) -> EvaluationModel:
    """CLIP or a classifier: `kind` and `options` as in convert.pretrained, `name` its folder.

    Its parameters stay in their files (`convert.stored`).
    """
    folder = foundation / name
    preprocess = preprocessor(folder, kind)
    return EvaluationModel(pretrained.load(kind, folder, stored=True, **options), preprocess)


def preprocessor(folder: Path, kind: str) -> Preprocessor:
    """Of a model's folder; `kind` as `model` of `Preprocessor.from_config`."""
    path = folder / _PREPROCESSOR
    try:
        return Preprocessor.from_config(read_object(path, error=DirectoryError), model=kind)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def load_video_classifier(foundation: Path, *, frames: int) -> EvaluationModel:
    """frames: of a clip. The model takes as many of them as are whole tubelets, since its positions
    are computed; those left over at the end, as of 4 k + 1 frames one, it does not see.

    Raises InputError for fewer than a tubelet's.
    """
    folder = foundation / VIDEO_CLASSIFIER
    tubelet = pretrained.configured("video_mae", folder).tubelet_size
    if frames < tubelet:
        raise InputError(
            f"clips of {frames} frames: must have at least {tubelet}, the tubelet_size of {folder}"
        )
    loaded = load_evaluation_model(foundation, "video_mae", VIDEO_CLASSIFIER)
    module = loaded.model.module.clone(num_frames=frames - frames % tubelet)
    return replace(loaded, model=loaded.model._replace(module=module))


def load_clip(foundation: Path, **options: Any) -> EvaluationModel:
    return load_evaluation_model(foundation, "clip", CLIP, **options)


def clip_shapes(foundation: Path, *, compute_dtype: DTypeLike) -> EvaluationModel:
    """CLIP with shapes in place of its variables, from its config.json alone.

    The preprocessor, whose file comes with the weights, resizes to what CLIP takes; its numbers are
    none that a step's size depends on.
    """
    place = foundation / CLIP
    module, shapes = pretrained.described(
        "clip", read_config(place), place=place, dtype=compute_dtype
    )
    side = module.vision_model.image_size
    size = {"size": side, "crop_size": side, "resample": 3}
    preprocess = Preprocessor.from_config(size)
    return EvaluationModel(Pretrained(module, {"params": shapes}), preprocess)


def tokenizer(settings: config.Config) -> Tokenizer:
    """CLIP's, which lies with the generator's text encoder where that shares it."""
    of_generator = generator_folder(settings) / "tokenizer"
    return Tokenizer.load(settings.foundation / CLIP if is_of_t5(of_generator) else of_generator)


def caption_tokenizer(settings: config.Config, generator: Generator) -> Tokenizer:
    """That of the generator's text encoder, with as many tokens as stand in their place."""
    tokens = condition_of(settings, generator)["tokens"]
    return Tokenizer.load(generator.folder / "tokenizer", length=tokens)


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


def condition_of(settings: config.Config, generator: Generator) -> dict[str, Any]:
    """What a generator is conditioned on: how many tokens, and their width."""
    tokens = settings.conditioning.tokens or generator.condition_tokens
    return {"tokens": tokens, "token_dim": generator.condition_width}


def fmri_encoder(
    settings: config.Config,
    *,
    clip_dim: int,
    tokens: int,
    token_dim: int | None = None,
    dropout: float,
    aligned: bool,
    box: Box | None = None,
) -> FmriEncoder:
    """`aligned`: with the alignment as configured (stage 2 and after) or without (before).

    tokens, token_dim: as `condition_of` says; None for the encoder's own width.
    box: where the cortex lies on the maps; the layer costs less for knowing it.
    """
    return FmriEncoder(
        **_transformer(settings),
        window=settings.data.window,
        tokens=tokens,
        token_dim=None if token_dim == settings.encoder.width else token_dim,
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
    return folder if minutes is None else folder / f"adapted-{fit_name(settings, minutes)}"


def fit_name(settings: config.Config, minutes: float) -> str:
    """A fit in the names of folders: its length, where chosen the method and the data, and whether
    the encoder was trained as well; of one to no fMRI the method alone."""
    own = settings.adapt
    if not minutes and own.method is not None:
        return own.method
    encoder = "with-encoder" if own.with_encoder else None
    return "-".join((f"{minutes:g}min", *filter(None, (own.method, own.data, encoder))))


def of_store(settings: config.Config) -> str:
    """The folder of what belongs to subjects of `protocol.test_store`; empty without one."""
    other = settings.protocol.test_store
    return "" if other is None else f"on-{other.stem}"


def save_own(kind: str, folder: Path, module: Any, params: Any) -> None:
    """Stores one of this project's own models as safetensors under the official names."""
    pretrained.save(kind, folder, params, config=pretrained.own_config(module))
