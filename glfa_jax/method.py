"""What a configuration's method is called in tables: the paper's names where it has one."""

from glfa_jax.config import Config, Cotrain

_STAGES = {"pretrain": "pretraining", "contrast": "stage 1"}


def method_name(settings: Config) -> str:
    """GLFA or a baseline, what it is trained without, and what the paper's method does not have.

    fMRI-PTE-V is the same pipeline with no alignment layer (SPEC §6.3).
    """
    if settings.method == "lea":
        return "LEA, generator co-trained" if settings.lea.cotrain_generator else "LEA"
    layer, aligned = settings.alignment, settings.aligned
    missing = [name for stage, name in _STAGES.items() if stage in settings.without]
    glfa = layer.method == "glfa"
    if aligned:
        missing += ["global"] if glfa and not layer.global_part else []
        missing += ["local"] if glfa and not layer.local_part else []
        missing += _losses_missing(settings.cotrain)
    name = ("GLFA" if glfa else layer.method) if aligned else "fMRI-PTE-V"
    if missing:
        name += " w/o " + ", w/o ".join(missing)
    more = {
        "per-subject alignment": layer.per_subject and glfa,
        "caption tokens": settings.contrast.token_scale and "contrast" not in settings.without,
        "LoRA": settings.cotrain.trainable == "lora",
    }
    parts = [name, *(words for words, there in more.items() if there)]
    if (minutes := settings.evaluation.adapted_minutes) is not None:
        parts.append(f"fitted to {minutes:g} min")
    return ", ".join(parts)


def _losses_missing(stage: Cotrain) -> list[str]:
    scales = {
        "regularisation": stage.glfa_scale * stage.regularisation_scale,
        "alignment loss": stage.glfa_scale * stage.alignment_scale,
    }
    missing = [name for name, scale in scales.items() if not scale]
    return ["consistency loss"] if len(missing) == len(scales) else missing
