"""Latents kept in the store: equal to encoding, resumable, of one VAE only."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data import DataError
from glfa_jax.data.latents import LatentsWriter
from glfa_jax.data.pipeline import batches
from glfa_jax.data.store import Store
from glfa_jax.data.video import unit_range
from glfa_jax.generators.unet3d import UNet3DGenerator
from glfa_jax.models.vae import AutoencoderKL
from glfa_jax.stages import latents
from tests.data.test_store_damage import unseal
from tests.test_lock import hold


@pytest.fixture(scope="module")
def vae():
    module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
    )
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return Pretrained(module, variables)


@pytest.fixture
def own(store, tmp_path):
    """A copy of the store with noise for video: norms of one grey only magnify rounding."""
    path = tmp_path / "own.zarr"
    shutil.copytree(store.path, path)
    kvstore = {"driver": "file", "path": str(path / "train" / "video")}
    video = ts.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
    video.write(np.random.default_rng(0).integers(256, size=video.shape, dtype=np.uint8)).result()
    unseal(path)
    return Store.open(path)


@pytest.fixture
def small_shards(monkeypatch):
    """Three shards for the six clips, two calls of the encoder each."""
    monkeypatch.setattr(latents, "SHARD", 2)
    monkeypatch.setattr(latents, "PIXELS_AT_ONCE", 1)


def keep(store: Store, vae: Pretrained, *, identity: str) -> None:
    absent: Any = None
    generator = UNet3DGenerator(Path(), absent, vae.module, absent)
    latents.keep(store, generator, vae.variables["params"], codec_identity=identity)


def posterior(vae, store):
    video = unit_range(store.video("train", range(6)))
    return vae.module.apply(vae.variables, video, method="encode")


def test_what_is_kept_is_the_posterior_of_every_clip(own, vae):
    assert not own.has_latents("train")
    assert own.latents("train", [0]) is None
    keep(own, vae, identity="one")
    kept, expected = own.latents("train", range(6)), posterior(vae, own)
    assert kept.dtype == np.float32
    assert kept.shape == (6, 2, 8, 8, 8)
    np.testing.assert_allclose(kept[..., :4], expected.mean, atol=1e-5)
    np.testing.assert_allclose(kept[..., 4:], expected.log_variance, atol=1e-5)
    assert own.has_latents("train")
    assert not own.has_latents("test")
    assert own.latents_of("train") == "one"


def test_kept_latents_are_not_made_again(own, vae, monkeypatch, capsys):
    keep(own, vae, identity="one")
    monkeypatch.setattr(latents, "unit_range", None)  # would be called to encode
    keep(own, vae, identity="one")
    assert "finished already" in capsys.readouterr().out


def test_a_stopped_writer_goes_on_where_it_was(own, vae, monkeypatch, small_shards):
    keep(own, vae, identity="one")
    whole = own.latents("train", range(6))
    shutil.rmtree(own.path / "train" / "latents")
    own = Store.open(own.path)
    seen, write = [], LatentsWriter.write

    def stopping(writer, shard, values):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(shard)
        write(writer, shard, values)

    monkeypatch.setattr(LatentsWriter, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        keep(own, vae, identity="one")
    assert not own.has_latents("train")
    monkeypatch.setattr(LatentsWriter, "write", lambda *a: (seen.append(a[1]), write(*a)))
    keep(own, vae, identity="one")
    assert seen == [range(0, 2), range(2, 4), range(4, 6)]
    np.testing.assert_array_equal(own.latents("train", range(6)), whole)
    assert [p.name for p in (own.path / "train").glob("*latents*")] == ["latents"]


def test_half_done_latents_of_another_vae_are_begun_anew(own, vae, monkeypatch, small_shards):
    monkeypatch.setattr(LatentsWriter, "finish", lambda _: None)
    keep(own, vae, identity="one")
    monkeypatch.undo()
    keep(own, vae, identity="two")
    assert own.latents_of("train") == "two"


def test_latents_of_another_vae_are_rejected(own, vae):
    keep(own, vae, identity="one")
    with pytest.raises(DataError, match=r"train/latents: was made with another VAE; remove it or"):
        keep(own, vae, identity="two")
    path = own.path / "train" / "latents" / "zarr.json"
    path.write_text(json.dumps({"node_type": "array"}))
    with pytest.raises(DataError, match="not latents of glfa_jax"):
        own.has_latents("train")


def test_a_failing_disk_is_one_sentence_and_what_is_done_stays(own, vae, small_shards):
    latents_writer = LatentsWriter(
        own.path, "train", clips=6, shard=2, sample=(2, 8, 8, 8), vae="one"
    )
    values = np.ones((2, 2, 8, 8, 8), np.float32)
    first, second, third = latents_writer.pending()
    latents_writer.write(first, values)
    blocked = own.path / "train" / ".latents.partial" / "c" / "1"
    blocked.write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written .*goes on from there"):
        latents_writer.write(second, values)
    assert latents_writer.pending() == [second, third]


def test_a_second_process_waits_and_finds_what_the_first_has_done(own, vae, monkeypatch, capsys):
    first = hold(own.path / "train" / ".latents.working")
    try:
        second = threading.Thread(target=keep, args=[own, vae], kwargs={"identity": "a"})
        second.start()
        while "waiting for its end" not in (said := capsys.readouterr().out):
            assert second.is_alive()
            time.sleep(0.05)
        assert f"process {first.pid} on " in said
        options = {"clips": 6, "shard": 64, "sample": (2, 8, 8, 8), "vae": "a"}
        done = LatentsWriter(own.path, "train", **options)
        done.write(range(6), np.ones((6, 2, 8, 8, 8), np.float32))
        done.finish()
    finally:
        first.kill()
        first.wait()
    second.join(timeout=60)
    assert "finished already" in capsys.readouterr().out
    assert {p.name for p in (own.path / "train").iterdir() if "latents" in p.name} == {"latents"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"{"),
        lambda path: path.unlink(),
        lambda path: path.write_text(path.read_text().replace("[6,2,8,8,8]", "[9,2,8,8,8]")),
    ],
)
def test_half_done_latents_that_are_damaged_are_begun_anew(own, vae, small_shards, damage):
    half = LatentsWriter(own.path, "train", clips=6, shard=2, sample=(2, 8, 8, 8), vae="one")
    half.write(range(2), np.ones((2, 2, 8, 8, 8), np.float32))
    damage(own.path / "train" / ".latents.partial" / "zarr.json")
    keep(own, vae, identity="one")
    np.testing.assert_allclose(
        own.latents("train", [0])[0, ..., :4], posterior(vae, own).mean[0], atol=1e-5
    )


def test_identity_is_of_configuration_and_weights(vae):
    codec = vae.variables["params"]
    one = latents.identity(codec, {"scaling_factor": 0.2})
    assert one == latents.identity(codec, {"scaling_factor": 0.2})
    assert one != latents.identity(codec, {"scaling_factor": 0.3})
    leaves, tree = jax.tree.flatten(codec)
    leaves[-1] = leaves[-1] + 1
    other = jax.tree.unflatten(tree, leaves)
    assert one != latents.identity(other, {"scaling_factor": 0.2})


@pytest.mark.parametrize("paired_fraction", [1.0, 0.5])
def test_batches_hold_latents_in_place_of_video(own, vae, paired_fraction, monkeypatch):
    options = {
        "subjects": ["01", "02"], "split": "train", "batch_size": 8, "seed": 0,
        "tokenize": lambda captions: np.zeros((len(captions), 3), np.int32),
        "augment": None, "shuffle": True, "repeat": True, "paired_fraction": paired_fraction,
    }  # fmt: skip
    with pytest.raises(DataError, match=r"holds no train latents; run train\.latents"):
        batches(own, **options, latents=True)
    keep(own, vae, identity="one")
    columns = 1 if paired_fraction == 1 else 2
    plain = next(batches(own, **options))
    assert plain.latents is None
    for size in (2**30, 0):  # in memory, from disk
        monkeypatch.setattr("glfa_jax.data.rows.CACHE_BYTES", size)
        stream = batches(own, **options, latents=True)
        batch = next(stream)
        np.testing.assert_array_equal(batch.clip, plain.clip)
        np.testing.assert_array_equal(batch.fmri, plain.fmri)
        assert batch.video.shape == (4, columns, 0, 16, 16, 3)
        expected = own.latents("train", batch.clip.ravel()).reshape(4, columns, 2, 8, 8, 8)
        np.testing.assert_array_equal(batch.latents, expected)
    with pytest.raises(DataError, match="cannot be continued"):
        batches(own, **options).set_state(stream.get_state())
