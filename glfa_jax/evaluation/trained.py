"""What a trained model depended on besides its seed and its data."""

import json

from glfa_jax import config, start_from
from glfa_jax.results import FROM_NOTHING
from glfa_jax.training.checkpoints import read_done
from glfa_jax.training.loop import CHANGES_NO_NUMBER

_STAGES = ("pretrain", "contrast", "cotrain")
# Sections that say nothing of the training; data and protocol have identities.
_ELSEWHERE = ("name", "seed", "results_dir", "run_dir", "data", "protocol", "evaluation", "sweep")
_ELSEWHERE += ("explain",)
_NOT_OF = {"glfa": ("lea",), "lea": ("alignment", "conditioning", "contrast")}


def training_of(settings: config.Config, *, checkpoint: int) -> dict[str, str]:
    """Every option on which the training depended, as JSON; files only by the names of folders.

    checkpoint: step of stage 2; not asked with method `lea`, which has none.
    """
    fitted = settings.evaluation.adapted_minutes is not None
    without = [*_ELSEWHERE, *_NOT_OF[settings.method], *(() if fitted else ("adapt",))]
    without += [] if settings.cotrains else ["cotrain"]
    tree = settings.model_dump(mode="json", exclude=set(without))
    for name in (*_STAGES, "adapt"):
        if name in tree:
            tree[name] = getattr(settings, name).comparable(but=CHANGES_NO_NUMBER | config.STARTS)
    for name in _STAGES:
        if name in tree:
            tree[name] |= {k: str(start) for k, start in start_from.told(settings, name).items()}
            if start_from.unneeded(settings, name):
                del tree[name]
    if "pretrain" in tree:
        tree["pretrain"].setdefault("start_from", FROM_NOTHING)
    for name in _STAGES:
        # Of a constant learning rate the steps may have been changed since.
        if name in tree and (done := read_done(settings.run_dir / name)) is not None:
            tree[name]["steps"] = done.step
    if "lea" in tree:
        del tree["lea"]["batch_size"]
        if not settings.cotrains:
            del tree["lea"]["cotrain_generator"]  # younger than the method
    if settings.alignment.method == "glfa" and "alignment" in tree:
        del tree["alignment"]["method"], tree["alignment"]["options"]  # older than other methods
    hardware = tree.pop("hardware")
    tree |= {
        "foundation": settings.foundation.name,
        "hardware": {key: hardware[key] for key in ("compute_dtype", "frozen_dtype")},
        "evaluation": {"adapted_minutes": settings.evaluation.adapted_minutes},
    }
    if "cotrain" in tree:
        tree["cotrain"] |= {"checkpoint": checkpoint, "preset": settings.cotrain.preset}
    return {key: json.dumps(value) for key, value in sorted(config.flat(tree).items())}
