"""What a configuration's method is called in tables: the paper's names where it has one."""

from typing import Any

from glfa_jax.config import Adapt, Alignment, Config, Cotrain, called

# What a new subject's layer was fitted to, minutes of it where it is fMRI.
DATA = {
    "anatomy": "maps of his anatomy alone, no fMRI",
    "paired": "clips that training subjects saw as well",
    "unlabelled": "fMRI alone, of training clips",
    "unlabelled-test": "fMRI alone, the very maps that are decoded",
}
_STAGES = {"pretrain": "pretraining", "contrast": "stage 1"}


def method_name(settings: Config) -> str:
    """GLFA or a baseline, what it is trained without, and what the paper's method does not have.

    fMRI-PTE-V is the same pipeline with no alignment layer (SPEC §6.3).
    """
    if settings.method == "lea":
        parts = ["LEA", *_generator(settings)]
        parts += ["generator co-trained"] if settings.lea.cotrain_generator else []
        return ", ".join(parts)
    layer, aligned = settings.alignment, settings.aligned
    missing = [name for stage, name in _STAGES.items() if stage in settings.without]
    glfa = layer.method == "glfa"
    if aligned:
        missing += ["global"] if glfa and not layer.global_part else []
        missing += ["local"] if glfa and not layer.local_part else []
        missing += _losses_missing(settings.cotrain)
    name = ("GLFA" if glfa else _called(layer)) if aligned else "fMRI-PTE-V"
    if missing:
        name += " w/o " + ", w/o ".join(missing)
    more = {
        "per-subject alignment": layer.per_subject and glfa,
        "caption tokens": settings.contrast.token_scale and "contrast" not in settings.without,
        "LoRA": settings.cotrain.trainable == "lora",
        f"frozen kernels in {settings.cotrain.frozen_kernels}": settings.cotrain.frozen_kernels,
    }
    parts = [name, *_generator(settings), *(words for words, there in more.items() if there)]
    if (minutes := settings.evaluation.adapted_minutes) is not None:
        parts.append(_fitted(settings, minutes))
    return ", ".join(parts)


def _generator(settings: Config) -> list[str]:
    """Its name, unless it is the paper's."""
    return [] if settings.generator == "unet3d" else [f"generator {settings.generator}"]


def _called(chosen: Alignment | Adapt) -> str:
    """A method by its name, or those that it is composed of by theirs."""
    if chosen.method != "composed":
        return str(chosen.method)
    from glfa_jax.alignments import get  # with jax, which few results ask for

    composed: Any = get("composed").from_options(chosen.options, place="options")
    return " then ".join(part.name for part in composed.parts)


def _fitted(settings: Config, minutes: float) -> str:
    """To how much of a new subject, and unless that goes without saying how and to what; and
    whether the encoder was trained behind the layer."""
    data = data_of(settings)
    if data == "anatomy":
        return "fitted to anatomy alone"
    words = {
        "paired": "",
        "unlabelled": " of unlabelled maps",
        "unlabelled-test": " of unlabelled test maps",
    }
    how = "" if settings.adapt.method is None else f"{_called(settings.adapt)} "
    encoder = " with encoder" if settings.adapt.with_encoder else ""
    return f"{how}fitted to {minutes:g} min{words[data]}{encoder}"


def data_of(settings: Config) -> str:
    """What the layer of a new subject is fitted to: a key of `DATA`."""
    from glfa_jax.alignments import data_for_strangers  # with jax, which few results ask for

    return data_for_strangers(settings)


def _losses_missing(stage: Cotrain) -> list[str]:
    scales = {
        "regularisation": stage.glfa_scale * stage.regularisation_scale,
        "alignment loss": stage.glfa_scale * stage.alignment_scale,
    }
    missing = [name for name, scale in scales.items() if not scale]
    return ["consistency loss"] if len(missing) == len(scales) else missing


def loss_scales(stage: Cotrain) -> str:
    """Which preset the scales of stage 2's loss are, or what they are."""
    words = {"code": "loss scales of the official code", "paper": "loss scales of the paper"}
    if stage.preset is not None:
        return words[stage.preset]
    return (
        f"loss scales of its own (glfa_scale {stage.glfa_scale:g}, regularisation_scale "
        f"{stage.regularisation_scale:g}, alignment_scale {stage.alignment_scale:g})"
    )


def started_from(settings: Config) -> str:
    """From which weights the fMRI encoder, and a generator that is not the foundation's, began."""
    pretrain, contrast, cotrain = settings.pretrain, settings.contrast, settings.cotrain
    if settings.method == "glfa" and cotrain.encoder_from is not None:
        words = f"stage 2 from the encoder in {called(cotrain.encoder_from)}"
    elif settings.method == "glfa" and contrast.start_from is not None:
        words = f"stage 1 from the encoder in {called(contrast.start_from)}"
    elif "pretrain" in settings.without:
        words = "encoder from random weights, not pretrained"
    elif pretrain.start_from is not None:
        words = f"autoencoder fine-tuned from {called(pretrain.start_from)}"
    else:
        words = "autoencoder from random weights, as in the paper's ablation without pretraining"
    if settings.cotrains and cotrain.generator_from is not None:
        words += f"; generator from {called(cotrain.generator_from)}"
    return words


def training_words(settings: Config) -> str:
    """`started_from`, and `loss_scales` where there is such a loss."""
    words = started_from(settings)
    return f"{words}; {loss_scales(settings.cotrain)}" if settings.aligned else words
