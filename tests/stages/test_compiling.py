"""What a step is compiled for without data."""

from glfa_jax.ops.attention import using
from glfa_jax.stages import compiling
from tests.stages.displaced import write_store
from tests.stages.variants import settings_of


def test_a_batch_is_as_training_would_have_it(tmp_path) -> None:
    stage = {"batch_size": 6, "paired_fraction": 0.5}
    settings = settings_of(tmp_path, write_store(tmp_path / "store.zarr"), cotrain=stage)
    batch = compiling.batch_shapes(settings, "cotrain", tokens=7)
    assert batch.fmri.shape[:2] == (3, 2)  # a row holds a window of either subject
    assert batch.clip.shape == (3, 2)  # and, where only some rows are paired, a clip of each
    assert batch.tokens.shape == (3, 2, 7)
    assert batch.video.shape[2:] == (settings.data.frames, *settings.data.resolution, 3)
    assert batch.latents is None
    kept = compiling.batch_shapes(settings, "cotrain", tokens=7, latents=(2, 4, 4, 8))
    assert kept.video.shape[2] == 0
    assert kept.latents.shape == (3, 2, 2, 4, 4, 8)


def test_attention_is_compiled_as_configured(tmp_path, monkeypatch) -> None:
    found = []
    monkeypatch.setattr(compiling, "compile_step", lambda *_, **__: found.append(using.value))
    store = write_store(tmp_path / "store.zarr")
    settings = settings_of(tmp_path, store, hardware={"attention": "fused"})
    compiling.compile_stage(settings, "cotrain", "here", None)
    assert found == ["fused"]
