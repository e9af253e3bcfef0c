"""Captions: the table beside the clips, tokens for the text encoder, and augmented wordings."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from glfa_jax import files
from glfa_jax.data import DataError
from glfa_jax.data.tables import read_table, stop
from glfa_jax.errors import Terminated

MISSING = ("", "n/a", "N/A", "NA", "nan", "NaN")  # as BIDS, R, pandas and MATLAB write nothing
LONGEST = 2**17  # bytes of a caption
_MOST_TOKENS = 10_000  # of a caption; CLIP's are 77
_SENTENCEPIECE = "spiece.model"  # the vocabulary of T5's tokenizers, beside tokenizer.json
_SETTINGS = "tokenizer_config.json"

# Words of one line may stand for each other. Used where WordNet is not installed.
_SYNONYMS = """
small little tiny | large big huge | ball sphere orb | house home cottage | car automobile auto
tree sapling | bird fowl | heart | star | fish | man gentleman | woman lady | child kid youngster
person human | people folk persons | dog hound | cat kitty | horse steed | boat ship vessel
road street | water sea ocean | sea ocean | sky heavens | grass lawn meadow | sand beach
forest woods | mountain hill peak | city town | picture image | red crimson scarlet | orange amber
yellow golden | green emerald | blue azure | purple violet | pink rose | white pale | black dark
brown tan | grey gray | bright light | dark dim | fast quick rapid | slow unhurried
moving travelling going | moves travels goes | move travel go | growing expanding swelling
grows expands swells | shrinking contracting dwindling | shrinks contracts dwindles
spinning rotating turning | spins rotates turns | still motionless static | resting standing staying
rests stands stays | rising climbing ascending | rises climbs ascends | falling sinking descending
falls sinks descends | flying soaring | floating drifting | floats drifts | swimming gliding
walking strolling | running racing | jumping leaping | up upward upwards | down downward downwards
left leftward leftwards | right rightward rightwards | over above | under below beneath
deep profound | clear cloudless | beautiful lovely | old ancient | young youthful | looking gazing
talking speaking | playing having-fun | showing displaying | close near
"""

_STOP_WORDS = """
a an the this that these those is are was were be been being am of in on at to from by with and or
but as for it its he she they them his her their there here which who what while into onto over
under no not do does did has have had i you we us our your my me so than then very
"""


def read_captions(
    path: str | Path, *, failed: Callable[[DataError], None] = stop
) -> dict[str, str]:
    """`captions.tsv` (columns stim_file, caption) as a mapping from clip to caption.

    `failed` is called with rows that cannot be used, and may raise to stop; a clip whose captions
    differ has none then.
    """
    lines: dict[str, int] = {}
    captions: dict[str, str] = {}
    for row in read_table(Path(path), columns=("stim_file", "caption"), failed=failed):
        try:
            clip, caption = row.stim_file, row["caption"].strip()
            if caption in MISSING:
                raise DataError(f"{row.where}: clip {clip} has an empty caption, {caption!r}")
        except DataError as error:
            failed(error)
            continue
        line = lines.setdefault(clip, row.line)
        if line != row.line and captions.pop(clip, None) != caption:
            failed(DataError(f"{row.where}: clip {clip} has another caption than in line {line}"))
        else:
            captions[clip] = caption
    return captions


@dataclass(frozen=True)
class Tokenizer:
    """CLIP's tokenizer or T5's, from a local folder; captions come out padded to `length`.

    end: the number that ends every caption, of which padding follows. T5's, which Wan's text
    encoder reads, is used as Wan's pipeline in diffusers uses it: HTML entities are resolved, white
    space becomes single spaces, and padding is the number that the text encoder does not see.
    """

    folder: Path
    length: int
    end: int
    _tokenizer: object = field(repr=False)
    _clean: Callable[[str], str] = field(repr=False)

    @classmethod
    def load(cls, folder: str | Path, *, length: int | None = None) -> "Tokenizer":
        """length: numbers a caption; left out: `model_max_length` of tokenizer_config.json.

        Raises DataError where there is no such tokenizer, or CLIP's has no such length.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such tokenizer folder")
        files.verify_checksums(folder, error=DataError)
        for path in folder.iterdir():
            if not path.is_dir():
                files.validate_regular(path, error=DataError)
        kind = "T5" if is_of_t5(folder) else "CLIP"
        try:
            tokenizer = _read(folder, kind)
            longest: Any = tokenizer.model_max_length
            # T5 knows distances of tokens, not places, so that captions of any length will do.
            if (length is None or kind == "CLIP") and not (
                type(longest) is int and 2 <= longest <= _MOST_TOKENS
            ):
                raise DataError(
                    f"{folder}: {_SETTINGS} must state model_max_length, a whole number from 2 to "
                    f"{_MOST_TOKENS:,}"
                )
            # T5's numbers are places in a list.
            indices = list(tokenizer.get_vocab().values())
            if kind == "CLIP" and sorted(indices) != list(range(len(indices))):
                raise DataError(f"{folder}: its vocabulary must number the tokens without gaps")
            asked: int = longest if length is None else length
            most = longest if kind == "CLIP" else _MOST_TOKENS
            if not 2 <= asked <= most:
                raise DataError(
                    f"{folder}: {asked} tokens of a caption asked for, must be 2 to {most:,}"
                )
            clean = _as_wan_cleans if kind == "T5" else str
            found = cls(folder, asked, tokenizer.eos_token_id, tokenizer, clean)
            if found.end not in found(["a"]):  # some damage shows only in use
                raise DataError(f"{folder}: its captions must end with eos_token")
        except (DataError, KeyboardInterrupt, Terminated):
            raise
        except BaseException as error:  # a library in Rust may panic, which is no Exception
            raise DataError(
                f"{folder}: holds no {kind} tokenizer ({files.reason(error)})"
            ) from None
        return found

    def __call__(self, captions: Sequence[str]) -> Int[ndarray, "b n"]:
        encoded = self._tokenizer(  # type: ignore[operator]
            [self._clean(caption) for caption in captions],
            padding="max_length",
            truncation=True,
            max_length=self.length,
        )
        return np.asarray(encoded["input_ids"], np.int32)


def is_of_t5(folder: Path) -> bool:
    """Whether a folder holds T5's tokenizer, by the class that it names or, without, its files."""
    try:
        settings = files.read_object(folder / _SETTINGS, error=DataError)
    except DataError:  # `Tokenizer.load` says what is wrong with it
        settings = {}
    named = str(settings.get("tokenizer_class", ""))
    if named.startswith(("T5", "CLIP")):
        return named.startswith("T5")
    return (folder / _SENTENCEPIECE).is_file()


def _read(folder: Path, kind: str) -> Any:
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    if kind == "CLIP":
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"{folder}: holds no tokenizer.json, by which T5's tokenizers are read")
    # As the file says: the class of T5 would build another one from its vocabulary.
    return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)


def _as_wan_cleans(caption: str) -> str:
    """As diffusers' WanPipeline does where ftfy, which mends damaged text, is not installed."""
    return " ".join(html.unescape(html.unescape(caption)).split())


@cache
def _wordnet() -> Any:
    """NLTK's WordNet, or None where the package or its data are missing."""
    try:
        from nltk.corpus import wordnet  # type: ignore[import-not-found]

        wordnet.synsets("ball")
    except (ImportError, LookupError, OSError):  # OSError: some of its files
        return None
    return wordnet


@cache
def _built_in() -> dict[str, tuple[str, ...]]:
    words: dict[str, tuple[str, ...]] = {}
    for group in re.split(r"[|\n]", _SYNONYMS):
        members = [word.replace("-", " ") for word in group.split()]
        for word in members:
            others = tuple(other for other in members if other != word)
            words[word] = words.get(word, ()) + others
    return {word: others for word, others in words.items() if others}


def thesaurus() -> str:
    """Where synonyms come from on this machine: `WordNet` or `built-in`."""
    return "built-in" if _wordnet() is None else "WordNet"


def synonyms(word: str) -> tuple[str, ...]:
    """Other words for a word in lower case, sorted; empty for stop words and strangers."""
    if word in _STOP_WORDS.split():
        return ()
    wordnet = _wordnet()
    if wordnet is None:
        return tuple(sorted(set(_built_in().get(word, ()))))
    lemmas = {
        lemma.name().replace("_", " ").lower()
        for synset in wordnet.synsets(word)
        for lemma in synset.lemmas()
    }
    return tuple(sorted(lemmas - {word}))


def augment(caption: str, *, rng: np.random.Generator) -> str:
    """One word replaced by a synonym and two words swapped, where the caption allows (SPEC §3)."""
    words = caption.split()
    choices = [
        (i, other)
        for i, word in enumerate(words)
        for other in synonyms(word.strip(".,;:!?").lower())
    ]
    # Every word that can be replaced is equally likely, however many synonyms it has.
    places = sorted({i for i, _ in choices})
    if places:
        place = places[int(rng.integers(len(places)))]
        others = [other for i, other in choices if i == place]
        core = words[place].strip(".,;:!?")
        words[place] = words[place].replace(core, others[int(rng.integers(len(others)))])
    if len(words) > 1:
        a, b = rng.choice(len(words), size=2, replace=False)
        words[a], words[b] = words[b], words[a]
    return " ".join(words)
