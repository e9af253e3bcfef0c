"""Configuration: what is written reads back, and every mistake is one sentence about one key."""

import math
import os
from pathlib import Path

import pytest
import yaml

from examples.simulated.settings import Foundation, Wan
from glfa_jax import config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("examples/*/*.yaml")])
MINIMAL = """
name: toy
run_dir: runs/toy
foundation: foundation
data:
  root: data
  store: store
  subjects: ["01", "02", "03"]
protocol:
  train_subjects: ["01", "02"]
  test_subjects: ["03"]
"""


@pytest.fixture
def load(tmp_path):
    """Reads a text, with overrides."""

    def read(text: str = MINIMAL, *overrides: str) -> config.Config:
        path = tmp_path / "given.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load(path, overrides)

    return read


def rejection(load, text: str = MINIMAL, *overrides: str) -> str:
    with pytest.raises(config.ConfigError) as error:
        load(text, *overrides)
    message = str(error.value)
    assert "\n" not in message
    assert "pydantic" not in message
    assert not message.endswith(".")
    return message


def test_defaults_are_the_published_ones(load):
    settings = load()
    assert settings.encoder.latent == 2048
    assert (settings.cotrain.learning_rate, settings.contrast.dropout) == (3e-5, 0.6)
    assert settings.protocol.pretraining == "strict"


def test_what_is_dumped_reads_back(load):
    settings = load(
        MINIMAL,
        "data.simulation.noise=1e-7",
        "data.subjects=['01', '1e3', '02', '03', 'null', 'yes']",
        "name='2e5'",
        "evaluation.ways=[2, 10, 50]",
        "cotrain.learning_rate=1.2345678901234567e-05",
        "protocol.test_subjects=['1e3', 'yes']",
    )
    assert load(config.dump(settings)) == settings


def test_groups_of_metrics_are_read_under_their_former_names(load):
    former = load(MINIMAL, "evaluation.metrics=[motion, pictures, SSIM]")
    assert former.evaluation.metrics == ("motion", "pixel", "SSIM")
    assert "pictures" not in config.dump(former)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.5e-3", 2.5e-3), ("1.e+0", 1.0), ("0.5", 0.5), ("3", 3.0)],
)
def test_numbers_are_read_in_every_notation(load, text, value):
    assert load(MINIMAL, f"cotrain.learning_rate={text}").cotrain.learning_rate == value
    written = load(MINIMAL + f"cotrain:\n  learning_rate: {text}\n")
    assert written.cotrain.learning_rate == value


def test_whole_numbers_may_have_an_exponent(load):
    assert load(MINIMAL, "cotrain.steps=2e4").cotrain.steps == 20000


def test_overrides_reach_sections_that_the_file_leaves_out_or_empty(load):
    assert load(MINIMAL, "cotrain.lora.rank=4").cotrain.lora.rank == 4
    assert load(MINIMAL + "pretrain:\n", "pretrain.steps=7").pretrain.steps == 7
    assert load(MINIMAL, "data.simulation.seed=3").data.simulation.seed == 3
    assert load(MINIMAL, "seed=1", "seed=2").seed == 2


# What is written after `--set`; how the message must go on after the source.
MISTAKES = {
    "cotrain.stpes=3": "cotrain.stpes: unknown key, known here are steps, batch_size, ",
    "nothing.at.all=3": "nothing: unknown key, known here are name, seed, ",
    "data.simulation.clips=3": "data.simulation.clips: unknown key, known here are subjects, ",
    "cotrain.steps=a": "cotrain.steps: Input should be a valid integer, .*, got 'a'$",
    "cotrain.steps=1.5": "cotrain.steps: Input should be a valid integer, .*, got 1.5$",
    "cotrain.steps=true": "cotrain.steps: Input should be a number, got True$",
    "cotrain.weight_decay=false": "cotrain.weight_decay: Input should be a number, got False$",
    "cotrain.steps=": "cotrain.steps: Input should be a valid integer, got None$",
    "pretrain.steps=0": "pretrain.steps: Input should be greater than 0, got 0$",
    "cotrain.steps=0": "cotrain.steps: must be above 0 without encoder_from or generator_from, got",
    "cotrain.preset=eq7": "cotrain.preset: Input should be 'code' or 'paper', got 'eq7'$",
    "cotrain.temporal_dropout=1": "cotrain.temporal_dropout: Input should be less than 1, got 1$",
    "contrast.logit_scale_max=0": "contrast.logit_scale_max: .* greater than 0, got 0$",
    "cotrain.learning_rate=-1e-3": "cotrain.learning_rate: .* greater than 0, got -0.001$",
    "cotrain.learning_rate=.nan": "cotrain.learning_rate: .* finite number, got nan$",
    "cotrain.weight_decay=.inf": "cotrain.weight_decay: .* finite number, got inf$",
    "cotrain.dropout=1": "cotrain.dropout: Input should be less than 1, got 1$",
    "cotrain.betas=[0.9, 1.0]": "cotrain.betas.1: Input should be less than 1, got 1.0$",
    "seed=-1": "seed: Input should be greater than or equal to 0, got -1$",
    "seed=4294967296": "seed: Input should be less than 4294967296, got 4294967296$",
    "sweep.seeds=[0, -1]": "sweep.seeds.1: Input should be greater than or equal to 0, got -1$",
    "sweep.seeds=[4294967296]": "sweep.seeds.0: .* less than 4294967296, got 4294967296$",
    "sweep.guidance_scales=[3, 1e39]": "sweep.guidance_scales.1: .* 32 bits, up to 3.4e38, got 1e",
    "evaluation.guidance_scale=-1e39": "evaluation.guidance_scale: .* 32 bits, up to 3.4e38, got -",
    "data.simulation.seed=-1": "data.simulation.seed: .* greater than or equal to 0, got -1$",
    "cotrain.betas=[0.9]": "cotrain.betas.1: missing$",
    "contrast.crop_probability=1.1": "contrast.crop_probability: .* or equal to 1, got 1.1$",
    "method=all": "method: .* 'glfa' or 'lea', got 'all'$",
    "lea.alpha=all": "lea.alpha: Input should be 'auto' or a finite number from 0, got 'all'$",
    "lea.alpha=-1": "lea.alpha: Input should be 'auto' or a finite number from 0, got -1$",
    "lea.alpha=true": "lea.alpha: Input should be 'auto' or a finite number from 0, got True$",
    "alignment.global_part=3": "alignment.global_part: .* valid boolean, .*, got 3$",
    "alignment.kernel_size=12": "alignment.kernel_size: must be odd, got 12$",
    "cotrain=3": "cotrain: must be a section that holds keys, got 3$",
    "cotrain=": "cotrain: must be a section that holds keys, got nothing$",
    "data.subjects=[]": r"data.subjects: must hold at least 1, got \[\]$",
    "data.subjects=[1, 2]": "data.subjects.0: must be text, got the number 1; quote it; "
    "data.subjects.1: must be text, got the number 2; quote it$",
    "data.subjects=[a b]": "data.subjects.0: must consist of letters and digits, got 'a b'$",
    "data.subjects=['01', '02', '03', '03']": "data.subjects: each may be named once, got ",
    "name=a/b": "name: must consist of letters, digits, '.', '_' and '-', got 'a/b'$",
    "protocol.train_subjects=['01', '04']": r"protocol.train_subjects: \['04'\] not among "
    r"data.subjects \['01', '02', '03'\]$",
    "protocol.test_subjects=['05']": r"protocol.test_subjects: \['05'\] not among data.subjects ",
    "protocol.train_subjects=['01', '01']": "protocol.train_subjects: each may be named once, got ",
    "data.map_size=250": "data.map_size: 250 is no multiple of encoder.patch_size 16$",
    "contrast.batch_size=31": "contrast.batch_size: 31 is no multiple of the number of "
    "protocol.train_subjects, 2$",
    "cotrain.paired_fraction=0.05": "cotrain.paired_fraction: 0.05 of a batch of 8 rows is none of "
    "them; must be 0.0 to mean that, or the batch larger$",
    "contrast.paired_fraction=0.99": "contrast.paired_fraction: 0.99 of a batch of 16 rows is all ",
    "cotrain.paired_fraction=1.5": "cotrain.paired_fraction: Input should be less than or equal ",
    "cotrain.batch_size=15": "cotrain.batch_size: 15 is no multiple of the number of ",
    "encoder.num_heads=15": "encoder.width: 1024 is no multiple of num_heads 15$",
    "encoder={width: 66, num_heads: 6}": "encoder.width: 66 is no multiple of 4, for the 2-D",
    "conditioning.num_heads=3": "conditioning.num_heads: 3 is no divisor of encoder.width 1024$",
    "cotrain={offset_noise: 0.1, zero_terminal_snr: true}": "cotrain.offset_noise: must be 0 when "
    "zero_terminal_snr is true, got 0.1$",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_wrong_value_is_named_with_what_is_allowed(load, tmp_path, override):
    message = rejection(load, MINIMAL, override)
    source = f"{tmp_path / 'given.yaml'} --set {override}: "
    assert message.startswith(source)
    with pytest.raises(config.ConfigError, match=rf": {MISTAKES[override]}"):
        load(MINIMAL, override)


def test_layers_fitted_to_the_finished_model_are_for_no_other_checkpoint(load):
    given = ("evaluation.adapted_minutes=4", "cotrain.steps=3")
    for checkpoints in ([2], [2, 3]):
        message = rejection(load, MINIMAL, *given, f"sweep.checkpoints={checkpoints}")
        assert message.endswith(
            f"sweep.checkpoints: {checkpoints}, but the layers of evaluation.adapted_minutes were "
            "fitted to the finished model; must be left out or [3]"
        )
    load(MINIMAL, *given)
    load(MINIMAL, *given, "sweep.checkpoints=[3]")
    load(MINIMAL, *given[1:], "sweep.checkpoints=[2]")


def test_the_same_mistake_in_the_file_names_the_file_alone(load, tmp_path):
    message = rejection(load, MINIMAL + "pretrain:\n  steps: -3\n")
    assert message == (
        f"{tmp_path / 'given.yaml'}: pretrain.steps: Input should be greater than 0, got -3"
    )


def test_all_mistakes_are_reported_at_once(load):
    message = rejection(load, MINIMAL, "cotrain.steps=-1", "contrast.heads=2", "seed=x")
    assert "cotrain.steps: " in message
    assert "contrast.heads: unknown key" in message
    assert "seed: " in message


@pytest.mark.parametrize("section", ["name", "run_dir", "foundation", "data", "protocol"])
def test_what_has_no_default_must_be_given(load, section):
    tree = yaml.safe_load(MINIMAL)
    del tree[section]
    assert rejection(load, yaml.safe_dump(tree)).endswith(f"given.yaml: {section}: missing")


def test_a_missing_key_in_a_section_is_named_with_its_section(load):
    text = MINIMAL.replace("  root: data\n", "")
    assert rejection(load, text).endswith("given.yaml: data.root: missing")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set 'seed': must read section.key=value"),
        ("=3", "--set '=3': must read section.key=value"),
        ("", "--set '': must read section.key=value"),
        ("name.first=3", "--set 'name.first=3': name is no section"),
        ("data.subjects.a=3", "--set 'data.subjects.a=3': subjects is no section"),
    ],
)
def test_an_override_must_read_key_equals_value(load, override, message):
    assert rejection(load, MINIMAL, override) == message


@pytest.mark.parametrize("value", ["[1, 2", "{a: b", "2020-13-45", "'"])
def test_the_value_of_an_override_must_be_yaml(load, value):
    message = rejection(load, MINIMAL, f"evaluation.ways={value}")
    assert message.startswith("--set ")
    assert "evaluation.ways=" in message
    assert "not valid YAML (" in message


def test_a_key_given_twice_is_rejected(load, tmp_path):
    message = rejection(load, MINIMAL + "seed: 1\nseed: 2\n")
    assert message == (
        f"{tmp_path / 'given.yaml'}: key 'seed' is given twice, the second time in line 13"
    )


def test_a_key_given_twice_in_a_section_or_an_override_is_rejected(load, tmp_path):
    text = MINIMAL.replace("  root: data\n", "  root: data\n  root: other\n")
    assert rejection(load, text).startswith(f"{tmp_path / 'given.yaml'}: key 'root' is given twice")
    message = rejection(load, MINIMAL, "cotrain={steps: 1, steps: 2}")
    assert message.startswith("--set 'cotrain={steps: 1, steps: 2}': key 'steps' is given twice")


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("", "must hold sections and keys, holds nothing"),
        ("- a\n- b\n", "must hold sections and keys, holds a list"),
        ("name", "must hold sections and keys, holds a str"),
    ],
)
def test_a_file_without_keys_is_rejected(load, tmp_path, text, ending):
    assert rejection(load, text) == f"{tmp_path / 'given.yaml'}: {ending}"


@pytest.mark.parametrize(
    "text",
    ["name: [a\n", "a: b: c\n", "\tname: a\n", "name: !!python/object:os.system x\n", "? [a]\n: b"],
)
def test_what_is_no_yaml_is_rejected_with_the_place(load, tmp_path, text):
    message = rejection(load, text)
    assert message.startswith(f"{tmp_path / 'given.yaml'}: not valid YAML (")
    assert "line 1" in message or "line 2" in message


def test_a_key_that_is_a_number_is_rejected(load):
    assert "42" in rejection(load, MINIMAL + "42: 3\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    for name, reason in (
        ("absent.yaml", "no such file"),
        (".", "is no plain file"),
        ("latin.yaml", "must be UTF-8 text ("),
    ):
        with pytest.raises(config.ConfigError) as error:
            config.load(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {reason}")
    assert [path.name for path in tmp_path.iterdir()] == ["latin.yaml"]


def test_differences_name_every_key(load):
    lines = config.differences(load(), load(MINIMAL, "seed=3", "data.simulation.seed=1"))
    assert "seed: 0 | 3" in lines
    assert any(line.startswith("data.simulation.seed: None | 1") for line in lines)
    assert config.differences(load(), load()) == []


def test_options_of_lea_make_a_difference_to_lea_alone(load):
    """Their defaults have changed, and runs of other methods are continued."""
    other = load(MINIMAL, "lea.alpha=500")
    assert config.differences(load(), other) == []
    lea = [config.overridden(one, ["method=lea"]) for one in (load(), other)]
    assert config.differences(*lea) == ["lea.alpha: auto | 500.0"]
    assert "lea.alpha: auto | 500.0" in config.differences(load(), lea[1])


def test_there_are_configurations_to_test():
    assert {"demo.yaml", "foundation.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_load_and_are_short(path):
    kinds = {"foundation.yaml": Foundation, "wan.yaml": Wan}
    studies = ("alignment_study", "cleaning", "coverage", "generators", "precision", "repeats")
    kinds |= {f"{name}.yaml": config.Study for name in (*studies, "simulated")}
    schema = kinds.get(path.name, config.Config)
    settings = config.load(path, schema=schema)
    assert len(path.read_text().splitlines()) <= 60
    assert all(math.isfinite(value) for value in _numbers(settings.model_dump()))


def _numbers(tree):
    for value in tree.values():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield value


def test_a_misspelt_key_in_a_table_of_sections_is_named_with_what_is_known(load):
    for subject in ("1", "train"):
        message = rejection(load, MINIMAL, f"data.runs={{'{subject}': {{train: [1], tdst: [2]}}}}")
        assert f"data.runs.{subject}.test: missing" in message
        assert message.endswith(
            f"data.runs.{subject}.tdst: unknown key, known here are train, test"
        )


@pytest.mark.parametrize("key", [".", "a.", ".a", "a..b", ".".join("a" * 100), "." * 10**5])
def test_an_override_must_name_a_key_that_can_be(load, key):
    message = rejection(load, MINIMAL, f"{key}=3")
    assert message.endswith(": must read section.key=value")
    assert len(message) < 300


def test_long_values_are_cut_short_in_messages(load):
    for value in ("x" * 1999, "[" + "1, " * 1000 + "]", "0x" + "f" * 1900, "1" * 1900):
        assert len(rejection(load, MINIMAL, f"method={value}")) < 1000
    assert len(rejection(load, MINIMAL + "x" * 1000 + ": 3\n")) < 1000
    rejection(load, MINIMAL + '"a\\nb": 3\n', "a\nb=3")  # in one line


def test_many_mistakes_are_counted(load):
    message = rejection(load, MINIMAL + "".join(f"key{i}: {i}\n" for i in range(500)))
    assert message.endswith("; and 480 more mistakes")


def test_one_alias_is_changed_without_the_others(load):
    text = MINIMAL + "pretrain: &a\n  steps: 5\ncontrast: *a\n"
    settings = load(text, "pretrain.steps=7")
    assert (settings.pretrain.steps, settings.contrast.steps) == (7, 5)


def test_a_configuration_from_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(config.ConfigError, match="pipe: is no plain file"):
        config.load(tmp_path / "pipe")
