"""One caption out of those of a clip's frames."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def majority(captions: Sequence[str]) -> tuple[str, int]:
    """The most frequent caption, and how many of them it is; empty ones do not count.

    Of several that are equally frequent, the one whose words the others share most: by the sum over
    the other captions of |A ∩ B| / |A ∪ B|, with A and B their sets of words in lower case. Still
    equal, the first. ("", 0) where all are empty.
    """
    given = [caption for caption in captions if caption]
    if not given:
        return "", 0
    counts = Counter(given)  # in the order in which they first come
    most = max(counts.values())
    words = {caption: frozenset(_WORD.findall(caption.lower())) for caption in counts}

    def nearness(caption: str) -> float:
        return sum(
            count * _shared(words[caption], words[other])
            for other, count in counts.items()
            if other != caption
        )

    tied = [caption for caption, count in counts.items() if count == most]
    return max(tied, key=nearness), most


def _shared(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(len(a | b), 1)
