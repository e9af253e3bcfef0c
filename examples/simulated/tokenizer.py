"""A small CLIP tokenizer for the simulated study's captions.

Byte-level byte-pair encoding as CLIP's (Radford et al. 2021), in the files that
`transformers.CLIPTokenizer.from_pretrained` reads.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

from glfa_jax.files import write_atomically

START, END = "<|startoftext|>", "<|endoftext|>"
_SUFFIX = "</w>"
# A pair seen once is not worth a token.
_MIN_COUNT = 2
# CLIP's own number of merges.
_MAX_MERGES = 48_894

# CLIP's cleaning and its cutting into words, which CLIPTokenizer applies before the merges.
_NORMALIZER = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
)
_WORDS = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(
            Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"),
            behavior="removed",
            invert=True,
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)

Pair = tuple[str, str]


def write_tokenizer(texts: Iterable[str], folder: str | Path, *, max_length: int) -> None:
    """Trains on `texts` and writes vocab.json, merges.txt and the settings into `folder`.

    The same texts give the same files, in any order. `max_length`: tokens that captions are padded
    and cut to, start and end included. The end token has the largest index, as CLIP's.
    """
    merges = _train(_count_words(texts))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + _SUFFIX for byte in alphabet), *map("".join, merges), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "vocab.json", _json({token: i for i, token in enumerate(tokens)}))
    write_atomically(
        folder / "merges.txt",
        "".join(f"{line}\n" for line in ("#version: 0.2", *map(" ".join, merges))),
    )
    write_atomically(folder / "special_tokens_map.json", _json(special))
    write_atomically(folder / "tokenizer_config.json", _json(settings))


def _count_words(texts: Iterable[str]) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        cut = _WORDS.pre_tokenize_str(_NORMALIZER.normalize_str(text))
        words.update(word for word, _ in cut)
    return words


def _train(words: Counter[str]) -> list[Pair]:
    """The merges, most frequent pair first, ties in alphabetical order.

    The trainer of the tokenizers library breaks ties by the order of a hash map, which differs
    from run to run.
    """
    spelt: dict[str, tuple[str, ...]] = {
        word: (*word[:-1], word[-1] + _SUFFIX) for word in sorted(words)
    }
    counts: Counter[Pair] = Counter()
    holders: dict[Pair, set[str]] = {}

    def count(word: str, sign: int) -> None:
        parts = spelt[word]
        for pair in pairwise(parts):
            counts[pair] += sign * words[word]
            holders.setdefault(pair, set()).add(word)

    for word in spelt:
        count(word, 1)
    merges: list[Pair] = []
    while counts and len(merges) < _MAX_MERGES:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < _MIN_COUNT:
            break
        merges.append(best)
        for word in holders.pop(best):
            count(word, -1)
            spelt[word] = _merge(spelt[word], best)
            count(word, 1)
        del counts[best]
    return merges


def _merge(parts: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if parts[i : i + 2] == pair:
            merged.append("".join(pair))
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return tuple(merged)


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
