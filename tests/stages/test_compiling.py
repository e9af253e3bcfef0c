"""What is known of a step without data."""

from pathlib import Path

import jax

from glfa_jax import config
from glfa_jax.ops.attention import using
from glfa_jax.stages import compiling, cotrain
from tests.stages.displaced import write_store
from tests.stages.variants import settings_of

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


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
    step = compiling.Step({}, None, None, lambda *_: None, ())
    compiling.compile_stage(settings, "cotrain", "here", None, step)
    assert found == ["fused"]


def test_a_plan_counts_what_every_stage_holds(capsys) -> None:
    settings = config.load(DEMO, ["cotrain.keep=1"])
    cotrain.plan(settings)
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()[2:5]}
    assert [*rows] == ["pretrain", "contrast", "cotrain"]
    params = jax.tree.leaves(cotrain.step_of(settings).params)
    held = 4 * sum(x.size for x in params) / 2**20
    trained, _, moments, _, gradients, *_ = rows["cotrain"]
    assert trained == gradients == f"{held:.1f}"
    assert abs(float(moments) - 2 * held) < 0.1
    checkpoint, _, disk, _ = rows["cotrain"][-4:]
    assert abs(float(disk) - 2 * float(checkpoint)) < 0.15  # the one kept, one being written
    assert "--compile-only TOPOLOGY says how much" in said


def test_only_stages_to_be_run_are_planned(capsys) -> None:
    cotrain.plan(config.load(DEMO, ["without=[pretrain, contrast]"]))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:3]] == ["cotrain"]
