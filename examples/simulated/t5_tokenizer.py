"""A small tokenizer of T5's kind for the simulated study's captions.

Every word of the captions is a token, and so is every character, for all other words; in the files
that Wan's text encoder has its tokenizer in (`transformers.T5TokenizerFast`).
"""

import json
import math
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, processors

from examples.simulated.run import write_json

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
# Stands for the space before a word.
_SPACE = "▁"
# So unlikely that characters are taken only where there is no word.
_CHARACTER = -100.0


def write_tokenizer(texts: Iterable[str], folder: Path, *, max_length: int) -> None:
    """Counts the words of `texts` and writes tokenizer.json and the settings into `folder`.

    The same texts give the same files, in any order. `max_length`: tokens that captions are padded
    and cut to, the end included.
    """
    words = Counter(word for text in texts for word in text.split())
    most = sorted(words, key=lambda word: (-words[word], word))
    single = sorted({_SPACE, *string.ascii_letters, *string.digits, *".,;:!?'-"})
    scores = {token: 0.0 for token in (PAD, END, UNKNOWN)}
    scores |= {_SPACE + word: math.log(words[word] / words.total()) for word in most}
    scores |= {token: _CHARACTER for token in single}

    model = tokenizers.Tokenizer(models.Unigram(list(scores.items()), list(scores).index(UNKNOWN)))
    model.add_special_tokens([PAD, END, UNKNOWN])
    words_apart = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words_apart])
    model.post_processor = processors.TemplateProcessing(
        single=["$A", END], pair=["$A", END, "$B", END], special_tokens=[(END, 1)]
    )
    special = {"eos_token": END, "unk_token": UNKNOWN, "pad_token": PAD}
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": max_length, "extra_ids": 0}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "tokenizer.json", json.loads(model.to_str()))
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | settings)


def vocabulary_size(folder: Path) -> int:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
