"""How a stage computes follows the configuration."""

from glfa_jax.ops.attention import using
from glfa_jax.stages import running
from tests.stages.displaced import write_store
from tests.stages.variants import settings_of


def test_attention_is_computed_as_configured_while_a_command_runs(tmp_path, monkeypatch) -> None:
    store = write_store(tmp_path / "store.zarr")
    monkeypatch.setattr(running, "prepare", lambda data: store)
    monkeypatch.setattr(running.system, "check_foundation", lambda settings: None)
    settings = settings_of(tmp_path / "run", store, hardware={"attention": "einsum"})
    with running.begun(settings):
        assert using.value == "einsum"
    assert using.value == "auto"
