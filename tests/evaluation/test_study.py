"""A study of methods: which runs it makes, what they share, what it does again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from glfa_jax import config
from glfa_jax.cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_STOPPED
from glfa_jax.errors import InputError, Stopped
from glfa_jax.evaluation import findings, study
from glfa_jax.report import minutes
from glfa_jax.system import results_folder
from tests.evaluation import made
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


def leave_results(place: Path, own: config.Config) -> None:
    """Results that tell methods and seeds apart: fits bring a tenth, a seed a hundredth."""
    value = 0.5 + own.seed / 100 + (0.1 if own.evaluation.adapted_minutes else 0.0)
    scores = made.scores({"video 2-way": [value, value], "PSNR": [9, 9]}, method="any")
    scores.write(place / "scores.json")
    if own.protocol.test_store is not None:
        return
    after = 0.3 + own.seed / 10
    np.savez(
        place / "alignment.npz",
        isc_before=0.25,
        isc_after=after,
        isc_one_kernel=0.3,
        undone=np.nan if own.seed else 0.0,
    )


def rows_of(file: Path) -> list[str]:
    """Lines of a table but for its head."""
    return [line for line in file.read_text().splitlines() if line.startswith("|")][2:]


@pytest.fixture
def commands(monkeypatch) -> list[tuple[str, ...]]:
    """Every command that a study calls; each only leaves what marks it as done."""
    called = []

    def run(command: list[str]) -> int:
        called.append(tuple(command[2:]))
        module, file = command[2], Path(command[4])
        if module == "train.cotrain":
            own = config.load(file)
            for stage in ("pretrain", "contrast", "cotrain"):
                if stage not in own.without and not (own.run_dir / stage).exists():
                    (own.run_dir / stage / "model").mkdir(parents=True)
                    (own.run_dir / stage / "checkpoints").mkdir()
                    (own.run_dir / stage / "done.json").write_text(str(own.run_dir))
        elif module == "eval.score":
            own = config.load(file)
            place = results_folder(own)
            place.mkdir(exist_ok=True)
            leave_results(place, own)
        return 0

    monkeypatch.setattr(study, "run", run)
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


def test_what_alignment_and_minutes_bring_is_described(settings, commands):
    study.main(settings)
    root = settings.config.run_dir
    alignment = (root / "alignment.md").read_text().splitlines()
    assert alignment[2] == "| GLFA | 0.250 | 0.350 ± 0.071 | 0.300 | – |"
    assert rows_of(root / "minutes.md") == [
        "| GLFA | 0 (zero-shot) | 0.505 ± 0.007 |",
        "| GLFA | 4 | 0.605 ± 0.007 |",
    ]
    assert (root / "minutes.png").stat().st_size > 5000


def test_a_curve_has_the_name_that_its_methods_share(settings, commands):
    kernel = "alignment.kernel_size=3"
    methods = {
        "own fitted 1": (kernel, "evaluation.adapted_minutes=1"),
        "own fitted 2": (kernel, "evaluation.adapted_minutes=2"),
    }
    study.main(settings.model_copy(update={"methods": settings.methods | methods}))
    rows = rows_of(settings.config.run_dir / "minutes.md")
    assert [row.split("|")[1].strip() for row in rows] == ["GLFA"] * 2 + ["own fitted"] * 2
    assert findings._titles({"x": ["a 1", "a 2"], "y": ["a 3", "a 4"]}) == {"x": "a 1", "y": "a 3"}


@pytest.mark.parametrize(
    ("methods", "title"),
    [
        (["GLFA own, fitted to 4 min", "GLFA own, fitted to 8 min"], "GLFA own"),
        (["GLFA, fitted to 1 min", "GLFA, fitted to 4 min"], "GLFA"),
        (["GLFA, fitted to 1 min", "GLFA"], "GLFA"),
        (["GLFA, wide", "GLFA, wide, fitted to 1 min"], "GLFA, wide"),
        (["GLFA, trained on all three"], "GLFA, trained on all three"),
    ],
)
def test_a_curve_is_not_called_by_words_that_only_count(methods, title):
    assert findings._titles({"line": methods}) == {"line": title}


def test_methods_are_compared_by_the_metrics_that_are_named(settings, commands):
    study.main(settings.model_copy(update={"metrics": ("PSNR", "SSIM")}))
    assert commands[-1][-3:] == ("--metrics", "PSNR", "SSIM")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ("PSNR", "SSMI")}, "metrics: 'SSMI' is not measured of GLFA .*, SSIM, PSNR, "),
        (
            {"metrics": ("SSIM",), "methods": {"GLFA": ("evaluation.metrics=[motion]",)}},
            r"'SSIM' is not measured of GLFA \(.*\), but video 2-way, .*, frame 50-way, EPE$",
        ),
        (
            {"methods": {"GLFA": (), "b": ("evaluation.metrics=[sound]",)}},
            r"evaluation.metrics: 'sound' is neither a group of metrics \(captions, colour, ",
        ),
    ],
)
def test_metrics_that_will_not_be_measured_are_named_before_anything_is_trained(
    settings, commands, changes, said
):
    with pytest.raises(InputError, match=said):
        study.main(settings.model_copy(update=changes))
    assert not commands


def test_runs_with_another_protocol_are_compared_among_themselves(settings, commands):
    on_all = ("protocol.train_subjects=['01','02','03']", "contrast.batch_size=3")
    methods = {**settings.methods, "all": (*on_all, "cotrain.batch_size=3")}
    wider = settings.model_copy(update={"methods": methods})
    study.main(wider)
    first, second = (c for c in commands if c[0] == "eval.compare")
    root = settings.config.run_dir
    assert not [word for word in first if word.startswith("all=")]
    assert [word for word in second if "=" in word] == [
        f"all={root / 'all' / f'seed{seed}'}" for seed in (0, 1)
    ]
    assert second[-4:] == ("--reference", "all", "--output", str(root / "within-subject"))
    assert "| all | all, trained on | 0.505 ± 0.007 |" in (root / "minutes.md").read_text()


def test_whatever_comparing_would_reject_is_a_group_of_its_own(settings, commands):
    methods = {
        "GLFA": (),
        "same": ("protocol.train_subjects=['02', '01']",),
        "published": ("protocol.pretraining=published",),
        "one to one": ("protocol.train_subjects=['01']",),
        "on 01": ("protocol.test_subjects=['01']",),
        "elsewhere": ("data.root=another", "data.store=another.zarr"),
        "cleaned": ("data.clean.polynomial=4", "data.store=cleaned.zarr"),
        "few": ("evaluation.clips=2",),
        "FCVID": ("protocol.test_store=fcvid.zarr",),
        "FCVID w/o local": ("protocol.test_store=fcvid.zarr", "alignment.local_part=false"),
    }
    study.main(settings.model_copy(update={"methods": methods}))
    found = {
        Path(c[c.index("--output") + 1]).relative_to(settings.config.run_dir).as_posix(): {
            word.partition("=")[0] for word in c if "=" in word
        }
        for c in commands
        if c[0] == "eval.compare"
    }
    assert found == {
        ".": {"GLFA", "same", "cleaned"},
        "cross-subject-published": {"published"},
        "cross-subject-one-to-one": {"one to one"},
        "within-subject": {"on 01"},
        "cross-subject-elsewhere": {"elsewhere"},
        "cross-subject-few": {"few"},
        "cross-dataset": {"FCVID", "FCVID w/o local"},
    }


def test_the_protocol_of_every_row_is_said(settings, commands):
    on_all = ("protocol.train_subjects=['01','02','03']", "contrast.batch_size=3")
    methods = {**settings.methods, "all": (*on_all, "cotrain.batch_size=3")}
    study.main(settings.model_copy(update={"methods": methods}))
    described = (
        "Protocol: cross-subject, trained on subjects 01 and 02 of store, decoded subject 03 of "
        'store, strict pretraining. Of another protocol: "all" (within-subject, trained on '
        "subjects 01, 02 and 03 of store, decoded subject 03 of store, strict pretraining)."
    )
    for name in ("alignment.md", "minutes.md"):
        assert described in (settings.config.run_dir / name).read_text()
    whole = 'Rows "all, trained on" are of methods that were trained on whom they decode'
    assert whole in (settings.config.run_dir / "minutes.md").read_text()


def test_on_another_store_no_subjects_are_alike_and_methods_are_compared(settings, commands):
    overrides = ["methods={GLFA: [], w/o local: [alignment.local_part=false]}"]
    elsewhere = config.overridden(settings, [*overrides, "config.protocol.test_store=other.zarr"])
    study.main(elsewhere)
    assert commands[-1][0] == "eval.compare"
    text = (settings.config.run_dir / "alignment.md").read_text()
    assert text.startswith("No method aligns maps of test clips that all of its subjects have seen")
    assert "Protocol: cross-dataset" in text
    assert "|" not in text


def test_alignment_that_is_not_known_is_a_dash_and_a_damaged_file_is_named(settings, commands):
    study.main(settings)
    place = results_folder(settings.cell("w/o local", 1))
    (place / "alignment.npz").unlink()
    study.main(settings)
    rows = rows_of(settings.config.run_dir / "alignment.md")
    assert rows[:2] == [
        "| GLFA | 0.250 | 0.350 ± 0.071 | 0.300 | – |",
        "| w/o local | – | – | – | – |",
    ]
    commands.clear()
    for damaged in (b"", b"PK\3\4 cut off", b"no archive"):
        (place / "alignment.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"w-o-local/seed1/alignment\.npz: truncated or no"):
            study.main(settings)
        assert commands.pop()[0] == "eval.compare"


def test_names_may_hold_what_markdown_and_formulas_are_made_of(settings, commands):
    methods = {
        "a|b $x_1$ $": ("alignment.kernel_size=3",),
        "a|b $x_1$ $ fitted": ("alignment.kernel_size=3", "evaluation.adapted_minutes=1"),
    }
    study.main(settings.model_copy(update={"methods": settings.methods | methods}))
    escaped = r"| a\|b \$x\_1\$ \$ |"
    for name in ("alignment.md", "minutes.md"):
        rows = rows_of(settings.config.run_dir / name)
        assert any(row.startswith(escaped) for row in rows)


def test_a_dollar_is_drawn_as_it_is(tmp_path, monkeypatch):
    labels, legend = [], Figure.legend

    def kept(figure, handles, names, **options):
        drawn = legend(figure, handles, names, **options)
        drawn.figure.canvas.draw()
        labels.extend(text._preprocess_math(text.get_text()) for text in drawn.get_texts())
        return drawn

    monkeypatch.setattr(Figure, "legend", kept)
    line = {0.0: {"SSIM": np.array([0.1])}, 4.0: {"SSIM": np.array([0.2])}}
    minutes.draw({"$a_b$": line, r"5 $\oops$": line}, tmp_path / "x.png", metrics=["SSIM"])
    assert labels == [("$a_b$", False), (r"5 $\oops$", False)]


def test_without_a_metric_in_common_no_curve_is_drawn(settings, commands, monkeypatch):
    monkeypatch.setattr(findings, "METRICS", ("SSIM",))
    study.main(settings)
    assert not list(settings.config.run_dir.glob("minutes*"))
    assert (settings.config.run_dir / "alignment.md").exists()


@pytest.mark.parametrize("name", ["a #2", "2024", "null", "[b", "x: y", "'"])
def test_runs_lie_where_the_study_is_configured_to_lie(settings, tmp_path, name):
    there = settings.config.model_copy(update={"run_dir": tmp_path / name})
    cell = settings.model_copy(update={"config": there}).cell("GLFA", 1)
    assert cell.run_dir == tmp_path / name / "GLFA" / "seed1"
    assert cell.seed == 1
    relative = settings.config.model_copy(update={"run_dir": Path(name)})
    cell = settings.model_copy(update={"config": relative}).cell("GLFA", 0)
    assert cell.run_dir == Path(name, "GLFA", "seed0")


# Runs the study with `sys.executable` replaced: what it starts is no training.
# What a shell starts in the background ignores Ctrl-C, and so do its children.
START = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.executable = sys.argv.pop(1)
runpy.run_module('eval.study', {}, '__main__')
"""
TRAINER = """#!/bin/sh
trap 'sleep 1; touch {folder}/saved; exit 75' TERM
touch {folder}/started
while :; do sleep 0.1; done
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, EXIT_STOPPED, "asked to stop (SIGTERM); the same command goes on"),
        (signal.SIGINT, EXIT_INTERRUPTED, "stopped; the same command goes on from here"),
    ],
)
def test_asked_to_stop_it_stops_its_command_and_waits(settings, tmp_path, number, code, said):
    trainer = tmp_path / "trainer"
    trainer.write_text(TRAINER.format(folder=tmp_path))
    trainer.chmod(0o755)
    words = ("--config", tmp_path / "study.yaml", "--set", f"config.run_dir={tmp_path / 'runs'}")
    process = subprocess.Popen(
        [sys.executable, "-c", START, trainer, *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, (tmp_path / "saved").exists()) == (code, True)
    assert said in error
    assert "Traceback" not in error


def test_what_cannot_be_ends_the_command_with_a_sentence(settings, tmp_path, monkeypatch, capsys):
    words = ["--config", str(tmp_path / "study.yaml"), "--set", "methods.blank=[seed=3]"]
    assert study.command(words) == EXIT_BAD_INPUT
    assert "methods: blank, must not set seed, which the study" in capsys.readouterr().err


def test_what_stages_do_not_depend_on_is_shared_and_what_they_do_is_not(settings, commands):
    methods = {
        **settings.methods,
        "w/o stage 1": ("without=[contrast]",),
        "half": ("hardware.compute_dtype=bfloat16",),
    }
    study.main(settings.model_copy(update={"methods": methods}))
    assert not (settings.config.run_dir / "w-o-stage-1" / "seed0" / "contrast").exists()
    for method, stage, owner in (
        ("w/o stage 1", "pretrain", "GLFA"),
        ("half", "pretrain", "half"),
        ("half", "cotrain", "half"),
    ):
        folder = settings.config.run_dir / method.replace("/", "-").replace(" ", "-") / "seed0"
        made_in = Path((folder / stage / "done.json").read_text())
        assert made_in.parent.name == owner


def test_runs_begun_with_other_settings_are_rejected(settings, commands):
    study.main(settings)
    commands.clear()
    stage = settings.config.cotrain.model_copy(update={"steps": 7})
    changed = settings.config.model_copy(update={"cotrain": stage})
    with pytest.raises(InputError, match=r"GLFA/seed0.yaml: .* cotrain.steps: 7 \| \d+ \(here"):
        study.main(settings.model_copy(update={"config": changed}))
    assert not commands


def test_a_run_that_fails_is_named(settings, monkeypatch):
    monkeypatch.setattr(study, "run", lambda command: 3)
    with pytest.raises(InputError, match=r"GLFA, seed 0: python -m train.cotrain .* ended with 3"):
        study.main(settings)
    assert "train.cotrain" in study.times_of(settings.cell("GLFA", 0))


def test_a_run_that_was_stopped_can_be_started_again(settings, monkeypatch):
    monkeypatch.setattr(study, "run", lambda command: 75)
    with pytest.raises(Stopped, match=r"GLFA, seed 0: train\.cotrain was stopped"):
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
        ("methods.-x=[]", "methods: '-x', must be one line without = or leading -"),
        ("methods={GLFA: [], glfa: []}", "methods: GLFA and glfa would share the folder glfa"),
        ("methods={GLFA: [], '': []}", "methods: '', must hold a letter from A to Z or a digit"),
        ("methods={GLFA: [], ' ': []}", "methods: ' ', must hold a letter from A to Z or a digit"),
        (r'methods={GLFA: [], "\x07": []}', r"methods: '\\x07', must be one line without"),
        ("methods.GLFA=[seed=3]", "methods: GLFA, must not set seed, which the study gives"),
        ("methods.GLFA=[run_dir=x]", "methods: GLFA, must not set run_dir, which the study gives"),
        (
            "methods.own=[alignment.per_subject=true]",
            r"own, has no layer \(alignment.per_subject\) for 03, .* needs evaluation.adapted_minu",
        ),
        (
            "methods.LEA=[method=lea, evaluation.adapted_minutes=4]",
            "methods: LEA, has no alignment layer .*adapted_minutes must be left out",
        ),
        (
            "methods.plain=[alignment.global_part=false, alignment.local_part=false, "
            "evaluation.adapted_minutes=4]",
            "methods: plain, has no alignment layer",
        ),
        ("seeds=[4294967296]", "seeds.0: Input should be less than 4294967296"),
    ],
)
def test_what_cannot_be_is_rejected_before_anything_runs(settings, tmp_path, override, said):
    with pytest.raises(config.ConfigError, match=said):
        config.load(tmp_path / "study.yaml", [override], schema=config.Study)
