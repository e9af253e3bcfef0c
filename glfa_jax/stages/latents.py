"""Keeps the VAE's latents of every training clip in the prepared store.

    python -m train.latents --config configs/demo.yaml

Stage 2 does this by itself where `data.latents` is true. What is kept is the posterior, mean and
log-variance, so that training still draws from it.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.convert.directory import read_config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.latents import LatentsWriter, writing_latents
from glfa_jax.data.store import SHARD, Store
from glfa_jax.data.video import unit_range
from glfa_jax.preparation import prepare
from glfa_jax.training.loop import use_compilation_cache

# Of the frames encoded at once: 16 of 256 x 256.
PIXELS_AT_ONCE = 2**20


def identity(vae: Pretrained, settings: dict[str, Any]) -> str:
    """Of the VAE's config.json and its weights."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(vae.variables):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        digest.update(value.view(np.uint8).data)
    return digest.hexdigest()


def keep(store: Store, vae: Pretrained, *, vae_identity: str) -> None:
    """Encodes what is not kept yet. Raises DataError when another VAE's latents are."""
    module: Any = vae.module
    frames, height, width, _ = store.sample
    factor = 2 ** (len(module.block_out_channels) - 1)
    with writing_latents(
        store.path,
        "train",
        clips=store.num_clips("train"),
        shard=SHARD,
        sample=(frames, height // factor, width // factor, 2 * module.latent_channels),
        vae=vae_identity,
    ) as writer:
        if writer.finished:
            print(f"latents: {writer.path}: finished already", flush=True)
        else:
            _fill(writer, store, vae)


def _fill(writer: LatentsWriter, store: Store, vae: Pretrained) -> None:
    module: Any = vae.module
    frames, height, width, _ = store.sample
    at_once = min(max(PIXELS_AT_ONCE // (frames * height * width), 1), SHARD)

    @jax.jit
    def encode(variables: dict, video: jax.Array) -> jax.Array:
        posterior: Any = module.apply(variables, video, method="encode")
        return jnp.concatenate([posterior.mean, posterior.log_variance], axis=-1)

    variables = jax.device_put(vae.variables)
    pending, clips = writer.pending(), store.num_clips("train")
    with tqdm(
        total=clips, initial=clips - sum(map(len, pending)), unit="clip", desc="latents"
    ) as bar:
        for shard in pending:
            parts = []
            for start in range(shard.start, shard.stop, at_once):
                # The last ones stand in for those that are missing: one program serves all.
                numbers = np.minimum(np.arange(start, start + at_once), shard.stop - 1)
                encoded = encode(variables, unit_range(store.video("train", numbers)))
                parts.append(np.asarray(encoded)[: shard.stop - start])
                bar.update(len(parts[-1]))
            writer.write(shard, np.concatenate(parts))
    writer.finish()


def run(settings: config.Config, store: Store, vae: Pretrained) -> None:
    """Keeps the latents of the foundation's VAE."""
    architecture = read_config(settings.foundation / "text-to-video" / "vae")
    keep(store, vae, vae_identity=identity(vae, dict(architecture)))


def main(settings: config.Config) -> None:
    use_compilation_cache()
    system.check_foundation(settings)
    run(settings, prepare(settings.data), system.load_generator(settings).vae)
    if not settings.data.latents:
        print("kept; training uses them where data.latents is true", flush=True)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="train.latents", description=__doc__)
