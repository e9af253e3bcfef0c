"""A captioner says what transformers says when it is called by hand."""

import shutil
import sys

import numpy as np
import pytest

from glfa_jax.captioning.captioner import Captioner
from glfa_jax.errors import InputError


@pytest.fixture(scope="module")
def images():
    """Of several sizes, as films are."""
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (20, 30), (16, 16), (40, 9), (33, 47), (20, 30)]
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.mark.parametrize(("beams", "tokens"), [(1, 6), (3, 9)])
def test_it_is_bit_for_bit_what_transformers_says(blip, images, beams, tokens):
    import torch
    import transformers as t

    model = t.BlipForConditionalGeneration.from_pretrained(blip).eval()
    processor = t.BlipProcessor.from_pretrained(blip)
    with torch.no_grad():
        written = model.generate(
            pixel_values=processor(images=images, return_tensors="pt")["pixel_values"],
            do_sample=False,
            num_beams=beams,
            max_new_tokens=tokens,
        )
    wanted = processor.tokenizer.batch_decode(written, skip_special_tokens=True)
    captioner = Captioner.load(str(blip), beams=beams, tokens=tokens)
    found = captioner(images)
    assert found == wanted
    assert len(set(found)) > 3  # else it would not look at them
    assert captioner(images) == found
    assert found[:2] == captioner(images[:2])


def test_its_name_tells_what_is_in_its_folder(blip, tmp_path):
    name = Captioner.load(str(blip)).name
    assert name.startswith("tiny-blip@")
    copy = shutil.copytree(blip, tmp_path / "tiny-blip")
    assert Captioner.load(str(copy)).name == name
    (copy / "generation_config.json").write_text("{}")
    assert Captioner.load(str(copy)).name != name


def test_what_is_no_captioner_is_rejected_in_one_sentence(blip, tmp_path):
    from safetensors.numpy import load_file, save_file

    def rejects(message, model):
        with pytest.raises(InputError, match=message) as caught:
            Captioner.load(str(model))
        assert "\n" not in str(caught.value)

    (tmp_path / "empty").mkdir()
    rejects("empty: holds no image captioner of transformers", tmp_path / "empty")
    rejects("must be a folder, or owner/name on the hub", "no-such-folder")
    cut = shutil.copytree(blip, tmp_path / "cut")
    weights = cut / "model.safetensors"
    whole = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-9])
    rejects("cut: holds no image captioner", cut)
    name = "text_decoder.bert.encoder.layer.0.crossattention.self.key.weight"
    save_file({k: v for k, v in whole.items() if k != name}, weights, {"format": "pt"})
    rejects(f"cut: lacks 1 weights, such as {name}", cut)


def test_without_pytorch_it_says_what_to_install(blip, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install 'glfa_jax\[caption\]' installs it"):
        Captioner.load(str(blip))
