"""The simulated study's tokenizer, as transformers loads it."""

import itertools

import pytest
import transformers

from examples.simulated.tokenizer import write_tokenizer

LENGTH = 12
TEXTS = [
    f"A {size} {colour} {thing} moves {way} over the sea, that's it"
    for size, colour, thing, way in itertools.product(
        ("small", "large"), ("red", "blue"), ("circle", "house"), ("left", "right")
    )
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(TEXTS, folder, max_length=LENGTH)
    return transformers.CLIPTokenizer.from_pretrained(folder)


def test_common_words_are_single_tokens(tokenizer):
    ids = tokenizer("a small RED circle\n moves left")["input_ids"]
    words = [f"{word}</w>" for word in ["a", "small", "red", "circle", "moves", "left"]]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|startoftext|>", *words, "<|endoftext|>"]


def test_captions_are_padded_and_cut_to_the_length(tokenizer):
    batch = tokenizer(["a red house", TEXTS[0], ""], padding="max_length", truncation=True)
    rows = batch["input_ids"]
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert [len(row) for row in rows] == [LENGTH] * 3
    assert all(row[0] == start and end in row for row in rows)
    assert rows[1].index(end) == LENGTH - 1
    assert rows[2] == [start] + [end] * (LENGTH - 1)


def test_the_end_token_is_the_largest(tokenizer):
    """Text encoders with the early end-of-text setting look for the largest index."""
    assert tokenizer.eos_token_id == tokenizer.vocab_size - 1
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.vocab_size))


@pytest.mark.parametrize("text", ["a zebra's café", "日本 10 ☃", "the red house, moves!"])
def test_any_text_can_be_spelt(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.eos_token_id not in ids[1:-1]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.replace(" ", "")


def test_the_order_of_the_texts_does_not_matter(tmp_path):
    write_tokenizer(TEXTS, tmp_path / "a", max_length=LENGTH)
    write_tokenizer(TEXTS[::-1], tmp_path / "b", max_length=LENGTH)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_to_learn_from_still_gives_a_tokenizer(tmp_path):
    write_tokenizer([], tmp_path, max_length=LENGTH)
    loaded = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert len(loaded("red")["input_ids"]) == 5
