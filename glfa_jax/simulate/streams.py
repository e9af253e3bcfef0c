"""Random numbers: everything that is drawn has a stream of its own.

So subject i is the same whatever other subjects there are, and an option that draws something new
leaves all that was drawn before as it was.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What is drawn. Numbers stay as they are: another one gives another study."""

    TUNING = 1
    SUBJECT = 2
    CLIPS = 3
    NOISE = 4
    ORDER = 5
    AREAS = 6
    PATCHWISE = 7
    ANATOMY = 8
    OWN_TUNING = 9
    OWN_CLIPS = 10
    ARTEFACTS = 11


def generator(seed: int, stream: Stream, *, index: int = 0) -> np.random.Generator:
    """`index`: of the subject, for what is drawn for each."""
    return np.random.default_rng([seed, stream, index])
