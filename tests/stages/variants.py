"""Configurations and stored models for tests of variants, as small as `tiny`."""

from pathlib import Path
from typing import Any

import jax

from glfa_jax import alignments, config, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.store import Store
from glfa_jax.training.checkpoints import mark_done
from tests.stages import tiny

FOUNDATION = Path(__file__).parents[2] / "foundation" / "simulated"


def settings_of(run_dir: Path, store: Store, **sections: Any) -> config.Config:
    width = {"width": tiny.WIDTH, "num_heads": 2, "patch_size": 8}
    tree: dict[str, Any] = {
        "name": "variant",
        "run_dir": run_dir,
        "foundation": FOUNDATION,
        "data": {
            "root": run_dir,
            "store": store.path,
            "subjects": store.attributes.subjects,
            "map_size": tiny.SIDE,
            "window": tiny.WINDOW,
            "frames": tiny.FRAMES,
        },
        "protocol": {"train_subjects": ["01", "02"], "test_subjects": ["03"]},
        "encoder": {**width, "depth": 1, "decoder_depth": 1, "latent": 4},
        "conditioning": {"hidden_tokens": 4, "num_heads": 2},
        "cotrain": {"steps": 2},
        "adapt": {
            "steps": 60,
            "learning_rate": 0.03,
            "batch_size": 10,
            "save_every": 20,
            "regularisation_scale": 0.1,
        },
    }
    sections["alignment"] = {"kernel_size": 3} | sections.get("alignment", {})
    return config.Config(**(tree | sections))


def store_trained(settings: config.Config, *, clip_dim: int = 6, tokens: int = 5) -> dict:
    """Leaves a finished stage 2 whose shared layer is the identity, whose own ones are anything."""
    module = system.fmri_encoder(
        settings, clip_dim=clip_dim, tokens=tokens, dropout=0.0, aligned=True
    )
    params = tiny.random_params(pretrained.parameter_shapes("fmri_encoder", module))
    if "func_align_layer" in params:
        # Not exactly: a weight of zero has no gradient.
        params["func_align_layer"] = jax.tree.map(lambda x: 1e-4 * x, params["func_align_layer"])
    folder = system.model_folder(settings, "cotrain")
    alignments.save_encoder(folder / "encoder", module, params)
    mark_done(settings.run_dir / "cotrain", step=settings.cotrain.steps, metrics={})
    return params


def load_trained(settings: config.Config) -> pretrained.Pretrained:
    folder = system.model_folder(settings, "cotrain") / "encoder"
    return in_memory(alignments.load_encoder(folder))
