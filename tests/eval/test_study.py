"""A study of methods: which runs it makes, what they share, what it does again."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval import study
from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.system import results_folder
from tests.test_config import MINIMAL

METHODS = """
  GLFA: []
  w/o local: [alignment.local_part=false]
  short stage 1: [contrast.steps=3]
  fitted: [evaluation.adapted_minutes=4]
"""
COMMANDS = ("train.cotrain", "eval.sample", "eval.score")
FITTED = ("train.cotrain", "train.adapt", "eval.sample", "eval.score")


@pytest.fixture
def settings(tmp_path) -> config.Study:
    own = "\n".join(f"  {line}" for line in MINIMAL.strip().splitlines())
    path = tmp_path / "study.yaml"
    text = f"seeds: [0, 1]\nreference: GLFA\nmethods:{METHODS}config:\n{own}\n"
    path.write_text(text, encoding="utf-8")
    return config.load(path, [f"config.run_dir={tmp_path / 'runs'}"], schema=config.Study)


@pytest.fixture
def commands(monkeypatch) -> list[tuple[str, ...]]:
    """Every command that a study calls; each only leaves what marks it as done."""
    called = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        called.append(tuple(command[2:]))
        module, file = command[2], Path(command[4])
        if module == "train.cotrain":
            own = config.load(file)
            for stage in ("pretrain", "contrast", "cotrain"):
                if not (own.run_dir / stage).exists():
                    (own.run_dir / stage / "model").mkdir(parents=True)
                    (own.run_dir / stage / "checkpoints").mkdir()
                    (own.run_dir / stage / "done.json").write_text(str(own.run_dir))
        elif module == "eval.score":
            place = results_folder(config.load(file))
            place.mkdir(exist_ok=True)
            (place / "scores.json").write_text("{}")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(study.subprocess, "run", run)
    return called


def trained_in(settings: config.Study, method: str, seed: int, stage: str) -> str:
    """The run in which a stage was trained."""
    folder = settings.cell(method, seed).run_dir / stage
    assert not (folder / "checkpoints").exists() or (folder / "done.json").read_text() == str(
        folder.parent
    )
    return Path((folder / "done.json").read_text()).relative_to(settings.config.run_dir).as_posix()


def test_methods_share_the_stages_that_they_have_in_common(settings, commands):
    study.main(settings)
    for seed in settings.seeds:
        for method, pretrain, contrast in (
            ("GLFA", "GLFA", "GLFA"),
            ("w/o local", "GLFA", "GLFA"),
            ("short stage 1", "GLFA", "short-stage-1"),
        ):
            where = (trained_in(settings, method, seed, s) for s in ("pretrain", "contrast"))
            assert [*where] == [f"{pretrain}/seed{seed}", f"{contrast}/seed{seed}"]
            own = trained_in(settings, method, seed, "cotrain")
            assert (
                own
                == settings.cell(method, seed)
                .run_dir.relative_to(settings.config.run_dir)
                .as_posix()
            )


def test_every_run_is_made_once_and_all_are_compared(settings, commands):
    study.main(settings)
    assert [c[0] for c in commands] == ([*COMMANDS] * 3 + [*FITTED]) * 2 + ["eval.compare"]
    compared = commands[-1]
    assert f"w/o local={settings.config.run_dir / 'w-o-local' / 'seed1'}" in compared
    assert f"fitted={settings.config.run_dir / 'fitted' / 'seed0' / 'adapted-4min'}" in compared
    fits = [c for c in commands if c[0] == "train.adapt"]
    assert all(c[3:] == ("--subject", "03", "--minutes", "4") for c in fits)
    assert compared[compared.index("--reference") + 1] == "GLFA"
    times = json.loads((settings.config.run_dir / "times.json").read_text())
    assert len(times) == 8
    commands.clear()
    study.main(settings)
    assert [c[0] for c in commands] == ["eval.compare"]
    (settings.cell("w/o local", 1).run_dir / "scores.json").unlink()
    commands.clear()
    study.main(settings)
    assert [c[0] for c in commands] == [*COMMANDS, "eval.compare"]


def test_a_run_that_fails_is_named(settings, monkeypatch):
    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=75))
    with pytest.raises(InputError, match=r"GLFA, seed 0: -m train.cotrain .* ended with 75"):
        study.main(settings)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methods.GLFA=[alignment.kernel=3]", "alignment.kernel: unknown key"),
        (
            "reference=other",
            "reference: other is none of methods, GLFA, w/o local, ",
        ),
        (
            "methods.w-o local=[]",
            "methods: w/o local and w-o local would share the folder w-o-local",
        ),
        ("seeds=[0, 0]", "seeds: each may be named once"),
        ("seeds=[4294967296]", "seeds.0: Input should be less than 4294967296"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(settings, tmp_path, override, said):
    with pytest.raises(config.ConfigError, match=said):
        config.load(tmp_path / "study.yaml", [override], schema=config.Study)
