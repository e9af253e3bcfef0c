"""A captioner of BLIP's architecture with random weights and twenty words, in a folder."""

import pytest


@pytest.fixture(scope="session")
def blip(tmp_path_factory):
    """Not to be changed: tests that damage it copy it first."""
    import torch
    import transformers as t

    folder = tmp_path_factory.mktemp("models") / "tiny-blip"
    folder.mkdir()
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a red blue green ball box dog on grass sea moves left"
    (folder / "vocab.txt").write_text("\n".join([*words.split(), "right", "up", "down"]) + "\n")
    tokenizer = t.BertTokenizer(str(folder / "vocab.txt"))
    images = t.BlipImageProcessor(size={"height": 16, "width": 16})
    t.BlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
    settings = t.BlipConfig(
        text_config={**small, **special, "vocab_size": 20, "encoder_hidden_size": 16},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        model = t.BlipForConditionalGeneration(settings)
        for name, weight in model.named_parameters():  # larger than at first: images must matter
            if "norm" in name.lower():
                weight.fill_(name.endswith("weight"))
            else:
                weight.copy_(torch.randn_like(weight) / 2)
    model.save_pretrained(folder)
    return folder
