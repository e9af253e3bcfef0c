"""Keeps the generator's encodings of every training clip in the prepared store.

    python -m train.latents --config configs/demo.yaml

Stage 2 does this by itself where `data.latents` is true. What is kept is the posterior, so that
training still draws from it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.data.latents import LatentsWriter, writing_latents
from glfa_jax.data.store import SHARD, Store
from glfa_jax.data.video import unit_range
from glfa_jax.generators import Generator
from glfa_jax.preparation import prepare
from glfa_jax.training.cpu_libraries import compiler_options
from glfa_jax.training.loop import use_compilation_cache

# Of the frames encoded at once: 16 of 256 x 256.
PIXELS_AT_ONCE = 2**20


def identity(codec: dict, settings: Mapping[str, Any]) -> str:
    """Of the codec's config.json and its parameters."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": codec}):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        digest.update(value.view(np.uint8).data)
    return digest.hexdigest()


def keep(store: Store, generator: Generator, codec: dict, *, codec_identity: str) -> None:
    """Encodes what is not kept yet. Raises DataError when another codec's latents are."""
    video = jax.ShapeDtypeStruct((1, *store.sample), jnp.float32)
    encoding = jax.eval_shape(generator.encode, codec, video)
    with writing_latents(
        store.path,
        "train",
        clips=store.num_clips("train"),
        shard=SHARD,
        sample=encoding.shape[1:],
        vae=codec_identity,
    ) as writer:
        if writer.finished:
            print(f"latents: {writer.path}: finished already", flush=True)
        else:
            _fill(writer, store, generator, codec)


def _fill(writer: LatentsWriter, store: Store, generator: Generator, codec: dict) -> None:
    frames, height, width, _ = store.sample
    at_once = min(max(PIXELS_AT_ONCE // (frames * height * width), 1), SHARD)
    options = compiler_options(jax.default_backend())
    encode = jax.jit(generator.encode, compiler_options=options)
    codec = jax.tree.map(jnp.asarray, codec)
    pending, clips = writer.pending(), store.num_clips("train")
    with tqdm(
        total=clips, initial=clips - sum(map(len, pending)), unit="clip", desc="latents"
    ) as bar:
        for shard in pending:
            parts = []
            for start in range(shard.start, shard.stop, at_once):
                # The last ones stand in for those that are missing: one program serves all.
                numbers = np.minimum(np.arange(start, start + at_once), shard.stop - 1)
                encoded = encode(codec, unit_range(store.video("train", numbers)))
                parts.append(np.asarray(encoded)[: shard.stop - start])
                bar.update(len(parts[-1]))
            writer.write(shard, np.concatenate(parts))
    writer.finish()


def run(store: Store, generator: Generator, codec: dict) -> None:
    """Keeps what the foundation's generator makes of the clips."""
    keep(store, generator, codec, codec_identity=identity(codec, generator.codec_config))


def main(settings: config.Config) -> None:
    use_compilation_cache()
    system.check_foundation(settings)
    store, generator = prepare(settings.data), system.generator(settings)
    run(store, generator, generator.load_codec())
    if not settings.data.latents:
        print("kept; training uses them where data.latents is true", flush=True)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="train.latents", description=__doc__)
