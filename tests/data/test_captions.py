"""Captions: reading, tokens, augmentation."""

import json
import os

import numpy as np
import pytest

from examples.simulated.t5_tokenizer import write_tokenizer as write_t5_tokenizer
from glfa_jax.data import DataError, captions


def write_tokenizer(folder):
    """A CLIP tokenizer of single letters with one merge, length 8."""
    folder.mkdir()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *[f"{c}</w>" for c in letters], "re", "red</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 8})
    )
    return folder


def test_table_is_read(tmp_path):
    (tmp_path / "captions.tsv").write_text('stim_file\tcaption\na.mp4\ta "red" ball\nb.mp4\ttwo\n')
    assert captions.read_captions(tmp_path / "captions.tsv") == {
        "a.mp4": 'a "red" ball',
        "b.mp4": "two",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stim_file\ttext\na.mp4\tx\n", "has no column caption"),
        ("stim_file\tcaption\na.mp4\n", "line 2 has no value for caption"),
        *(
            (f"stim_file\tcaption\na.mp4\t{none}\n", "line 2: clip a.mp4 has an empty caption")
            for none in (" ", "n/a", "NA", "nan")
        ),
        (
            "stim_file\tcaption\na.mp4\tx\n./a.mp4\ty\n",
            "line 3: clip a.mp4 has another caption than in line 2",
        ),
    ],
)
def test_bad_tables_are_rejected(tmp_path, text, message):
    (tmp_path / "captions.tsv").write_text(text)
    with pytest.raises(DataError, match=rf"captions\.tsv: {message}"):
        captions.read_captions(tmp_path / "captions.tsv")


def test_tokens_are_padded_and_cut_to_the_models_length(tmp_path):
    tokenizer = captions.Tokenizer.load(write_tokenizer(tmp_path / "tokenizer"))
    tokens = tokenizer(["red", "red red red red red red red red red", "Red"])
    assert tokens.dtype == np.int32
    start, end, red = 54, 55, 53
    np.testing.assert_array_equal(tokens[0], [start, red, *[end] * 6])
    np.testing.assert_array_equal(tokens[1], [start, *[red] * 6, end])
    np.testing.assert_array_equal(tokens[0], tokens[2])


def test_no_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no such tokenizer folder"):
        captions.Tokenizer.load(tmp_path / "none")


def test_as_many_tokens_as_asked_for(tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer")
    tokens = captions.Tokenizer.load(folder, length=3)(["red red red"])
    np.testing.assert_array_equal(tokens, [[54, 53, 55]])
    for length in (1, 9):
        with pytest.raises(DataError, match=rf"{length} tokens of a caption asked for, .* 2 to 8"):
            captions.Tokenizer.load(folder, length=length)


@pytest.fixture
def of_t5(tmp_path):
    """A tokenizer in T5's layout, of a few words and of letters."""
    write_t5_tokenizer(["a red ball", "a ball"], tmp_path / "t5", max_length=8)
    return tmp_path / "t5"


def test_t5s_tokens_end_and_are_padded_with_what_no_text_encoder_sees(of_t5):
    tokenizer = captions.Tokenizer.load(of_t5)
    assert (tokenizer.length, tokenizer.end) == (8, 1)
    a, ball, red = 3, 4, 5
    expected = [[a, red, ball, 1, 0, 0, 0, 0], [a] * 7 + [1], [1] + [0] * 7]
    np.testing.assert_array_equal(tokenizer(["a  red\tball ", "a " * 9, ""]), expected)
    long = captions.Tokenizer.load(of_t5, length=600)(["a&#32;red ball"])
    np.testing.assert_array_equal(long, [[a, red, ball, 1] + [0] * 596])


def test_kinds_are_told_by_class_or_by_files(of_t5, tmp_path):
    assert captions.is_of_t5(of_t5)
    assert not captions.is_of_t5(write_tokenizer(tmp_path / "clip"))
    settings = json.loads((of_t5 / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (of_t5 / "tokenizer_config.json").write_text(json.dumps(settings))
    assert not captions.is_of_t5(of_t5)
    (of_t5 / "spiece.model").write_bytes(b"")
    assert captions.is_of_t5(of_t5)
    assert captions.Tokenizer.load(of_t5)(["ball"])[0, 1] == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", None, "holds no tokenizer.json, by which T5's tokenizers are read"),
        ("tokenizer.json", "{", "holds no T5 tokenizer"),
        ("tokenizer.json", '{"version": "1.0"}', "holds no T5 tokenizer"),
        ("tokenizer_config.json", {"eos_token": None}, "captions must end with eos_token"),
        ("tokenizer_config.json", {"eos_token": "ball"}, "captions must end with eos_token"),
        ("tokenizer_config.json", {"pad_token": None}, "holds no T5 tokenizer"),
        ("tokenizer_config.json", {"model_max_length": 10**30}, "must state model_max_length"),
    ],
)
def test_a_damaged_tokenizer_of_t5_is_one_sentence(of_t5, name, content, said):
    (of_t5 / "special_tokens_map.json").unlink()
    path = of_t5 / name
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=said) as error:
        captions.Tokenizer.load(of_t5)
    assert str(error.value).startswith(f"{of_t5}: ")
    assert len(str(error.value).splitlines()) == 1


def _vocabulary(folder) -> dict:
    return json.loads((folder / "vocab.json").read_text())


_SETTINGS = {"tokenizer_class": "CLIPTokenizer"}
_DAMAGE = {
    "an empty vocabulary file": ("vocab.json", lambda _: ""),
    "a truncated one": ("vocab.json", lambda f: (f / "vocab.json").read_text()[:99]),
    "a vocabulary that is a list": ("vocab.json", lambda _: "[]"),
    "text as a number": ("vocab.json", lambda f: json.dumps(_vocabulary(f) | {"a": "0"})),
    "one number for two tokens": ("vocab.json", lambda f: json.dumps(_vocabulary(f) | {"a": 1})),
    "a number far off": ("vocab.json", lambda f: json.dumps(_vocabulary(f) | {"a": 10**6})),
    "a negative number": ("vocab.json", lambda f: json.dumps(_vocabulary(f) | {"a": -1})),
    "merges of unknown tokens": ("merges.txt", lambda _: "#version: 0.2\nr e\nreq q\n"),
    "no merges but noise": ("merges.txt", lambda _: "#version: 0.2\n\x00\x01\x02\n"),
    "settings that are a list": ("tokenizer_config.json", lambda _: "[]"),
    "broken settings": ("tokenizer_config.json", lambda _: "{"),
    "no length": ("tokenizer_config.json", lambda _: json.dumps(_SETTINGS)),
    **{
        f"a length of {length!r}": (
            "tokenizer_config.json",
            lambda _, length=length: json.dumps(_SETTINGS | {"model_max_length": length}),
        )
        for length in (0, -8, 1, 10**9, 8.5, "8", [8], None)
    },
    "a broken fast tokenizer": ("tokenizer.json", lambda _: "{"),
    "a fast tokenizer without a model": ("tokenizer.json", lambda _: '{"version": "1.0"}'),
    "a fast tokenizer of a wrong kind": ("tokenizer.json", lambda _: '{"model": 3}'),
}


@pytest.mark.parametrize(("name", "content"), _DAMAGE.values(), ids=_DAMAGE)
def test_a_damaged_tokenizer_is_one_sentence(name, content, tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer")
    (folder / name).write_text(content(folder))
    with pytest.raises(DataError) as error:
        captions.Tokenizer.load(folder)
    assert str(error.value).startswith(f"{folder}: ")
    assert len(str(error.value).splitlines()) == 1


def test_a_tokenizer_with_a_pipe_is_not_waited_for(tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer")
    (folder / "notes").mkdir()
    captions.Tokenizer.load(folder)
    (folder / "merges.txt").unlink()
    os.mkfifo(folder / "merges.txt")
    with pytest.raises(DataError, match=r"merges\.txt: is no plain file"):
        captions.Tokenizer.load(folder)


# Part of speech: its letter and synsets.
_WORDNET = {
    "noun": ("n", [("ball", "globe"), ("picture",)]),
    "verb": ("v", [("move", "go")]),
    "adj": ("a", [("small", "little", "wee_small")]),
    "adv": ("r", [("fast",)]),
}


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """A WordNet of four synsets, in the format of the large one, where NLTK looks for it."""
    import nltk

    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    (folder / "lexnames").write_text("00\tall\t3\n")
    for name in ("index.sense", "cntlist.rev", *(f"{kind}.exc" for kind in _WORDNET)):
        (folder / name).write_text("")
    for kind, (letter, synsets) in _WORDNET.items():
        data, index = "  1 licence\n", {}
        for words in synsets:
            index |= {word: len(data) for word in words}
            listed = " ".join(f"{word} 0" for word in words)
            frames = " 00" if letter == "v" else ""
            data += f"{len(data):08d} 00 {letter} {len(words):02x} {listed} 000{frames} | gloss\n"
        (folder / f"data.{kind}").write_text(data)
        lines = (f"{word} {letter} 1 0 1 0 {at:08d}" for word, at in sorted(index.items()))
        (folder / f"index.{kind}").write_text("  1 licence\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    captions._wordnet.cache_clear()
    yield folder
    captions._wordnet.cache_clear()
    nltk.corpus.wordnet._unload()


def test_wordnet_is_used_where_its_data_are(wordnet):
    assert captions.thesaurus() == "WordNet"
    assert captions.synonyms("ball") == ("globe",)
    assert captions.synonyms("small") == ("little", "wee small")
    assert captions.synonyms("moves") == ("go", "move")  # by its stem
    assert captions.synonyms("the") == captions.synonyms("picture") == ()
    words = captions.augment("the ball moves", rng=np.random.default_rng(0)).split()
    assert len({"globe", "go", "move"} & set(words)) == 1


def test_half_a_wordnet_is_none(wordnet):
    (wordnet / "data.noun").unlink()
    assert captions.thesaurus() == "built-in"


def test_augmentation_swaps_two_words_and_replaces_one(monkeypatch):
    monkeypatch.setattr(captions, "_wordnet", lambda: None)
    assert captions.thesaurus() == "built-in"
    caption = "a small red ball moving left over the sea"
    original = caption.split()
    seen = set()
    for seed in range(200):
        words = captions.augment(caption, rng=np.random.default_rng(seed)).split()
        assert len(words) == len(original)
        new = [word for word in words if word not in original]
        gone = [word for word in original if word not in words]
        assert len(new) == len(gone) == 1
        assert new[0] in captions.synonyms(gone[0])
        restored = [gone[0] if word == new[0] else word for word in words]
        assert sum(a != b for a, b in zip(restored, original, strict=True)) == 2
        seen.add(gone[0])
    assert {"small", "red", "ball", "moving", "left", "sea"} <= seen
    assert not seen & {"a", "over", "the"}


def test_augmentation_is_a_function_of_the_generator():
    caption = "a big blue car spinning at night"
    one, two = (captions.augment(caption, rng=np.random.default_rng(3)) for _ in range(2))
    assert one == two


def test_augmentation_bears_captions_with_nothing_to_change():
    assert captions.augment("xyzzy", rng=np.random.default_rng(0)) == "xyzzy"


def test_built_in_thesaurus_knows_the_simulated_world(monkeypatch):
    from glfa_jax.simulate import stimuli

    monkeypatch.setattr(captions, "_wordnet", lambda: None)
    for word in (*stimuli.COLOURS, *stimuli.SIZES, "ball", "house", "car", "tree", "bird"):
        assert captions.synonyms(word), word
