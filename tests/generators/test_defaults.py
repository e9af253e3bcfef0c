"""What a configuration leaves out is as its generator has it."""

from pathlib import Path

import pytest

from glfa_jax import config
from glfa_jax.generators import GENERATORS

ROOT = Path(__file__).parents[2]
OF_WAN = {
    "cotrain.trainable": "lora",
    "evaluation.sampler": "unipc",
    "evaluation.sampling_steps": 30,
    "evaluation.guidance_scale": 5.0,
}


def decided(settings: config.Config) -> dict:
    found = config.flat(settings.model_dump(mode="json"))
    return {key: found[key] for key in OF_WAN}


def bare(tmp_path: Path, *overrides: str) -> config.Config:
    """The demo's configuration, but for its sections of stage 2 and of sampling."""
    lines = (ROOT / "configs" / "demo.yaml").read_text().splitlines()
    kept, inside = [], False
    for line in lines:
        if line and not line.startswith((" ", "#")):
            inside = line.split(":")[0] in ("cotrain", "evaluation")
        kept += [] if inside else [line]
    (tmp_path / "bare.yaml").write_text("\n".join(kept) + "\ncotrain: {batch_size: 4}\n")
    return config.load(tmp_path / "bare.yaml", overrides)


def test_what_is_left_out_is_the_generators(tmp_path):
    assert decided(bare(tmp_path, "generator=wan")) == OF_WAN
    assert decided(bare(tmp_path)) == dict(GENERATORS["unet3d"].defaults)
    assert bare(tmp_path, "generator=wan").cotrain.batch_size == 4


def test_what_is_given_stays(tmp_path):
    own = ("evaluation.sampler=euler", "evaluation.guidance_scale=9.0")
    found = decided(bare(tmp_path, "generator=wan", *own))
    assert found == OF_WAN | {"evaluation.sampler": "euler", "evaluation.guidance_scale": 9.0}


def test_a_configuration_that_was_written_down_is_read_as_it_is(tmp_path):
    for name in ("wan", "unet3d"):
        written = bare(tmp_path, f"generator={name}", "evaluation.guidance_scale=2.0")
        (tmp_path / "config.yaml").write_text(config.dump(written))
        assert config.load(tmp_path / "config.yaml") == written


def test_another_generator_brings_its_own(tmp_path):
    """As the methods of a study have it."""
    first = bare(tmp_path, "evaluation.sampling_steps=7")
    wan = config.overridden(first, ["generator=wan", "evaluation.sampler=euler"])
    own = {"evaluation.sampler": "euler", "evaluation.sampling_steps": 7}
    assert decided(wan) == OF_WAN | own
    back = config.overridden(wan, ["generator=unet3d", "evaluation.sampler=ddim"])
    own["evaluation.sampler"] = "ddim"
    assert decided(back) == dict(GENERATORS["unet3d"].defaults) | own


def test_what_is_given_stays_with_another_generator(tmp_path):
    """Even where the former had it so by default."""
    first = bare(tmp_path, "evaluation.sampling_steps=25")
    wan = config.overridden(first, ["generator=wan"])
    assert decided(wan) == OF_WAN | {"evaluation.sampling_steps": 25}


def test_mistakes_are_told_as_they_were(tmp_path):
    assert bare(tmp_path, "generator=sora").evaluation.sampler == "dpm++"  # rejected where opened
    for wrong in ("evaluation=3", "evaluation=null"):
        with pytest.raises(config.ConfigError, match="evaluation: must be a section"):
            bare(tmp_path, "generator=wan", wrong)


@pytest.mark.parametrize("name", ["unet3d", "wan"])
def test_defaults_are_possible(name):
    kind = GENERATORS[name]
    assert kind.defaults["cotrain.trainable"] == next(iter(kind.trainable))
    assert kind.defaults["evaluation.sampler"] == kind.samplers[0]


def test_those_of_the_configuration_itself_are_of_the_default_generator():
    assert config.Config.model_fields["generator"].default == "unet3d"
    for key, value in GENERATORS["unet3d"].defaults.items():
        section, option = key.split(".")
        made = getattr(config, section.capitalize())
        assert made.model_fields[option].default == value
