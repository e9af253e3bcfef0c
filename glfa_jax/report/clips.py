"""The clips of the report: best, middle, worst, and all of them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from glfa_jax.report.inputs import Clip
from glfa_jax.report.pictures import Picture, data_uri
from glfa_jax.report.words import value_text

# Embedded pictures may take this many characters; the rest of the page is well under 1 MB.
MEDIA_BUDGET = 6_500_000
# Clips shown large in each of best, middle and worst.
SHOWN = 3


@dataclass(frozen=True)
class Ranked:
    """Clips from best to worst by `score`; None where no score is common to all of them."""

    clips: list[Clip]
    score: str | None


def rank(clips: Sequence[Clip], preferred: str, *, lower: Collection[str]) -> Ranked:
    """Orders clips by the preferred score, ties by the other scores in their order.

    lower: the scores that are better the lower they are.
    """
    common = [name for name in clips[0].scores if all(name in clip.scores for clip in clips)]
    if not common:
        return Ranked(list(clips), None)
    exact = [name for name in common if name == preferred or name.startswith(f"{preferred} ")]
    first = (exact or common)[0]
    names = [first, *(name for name in common if name != first)]

    def key(clip: Clip) -> list[float]:
        return [clip.scores[n] if n in lower else -clip.scores[n] for n in names]

    return Ranked(sorted(clips, key=key), first)


@dataclass(frozen=True)
class Card:
    """One clip. pictures: true and decoded, where they fit. place: in the ranking, from 0."""

    clip: Clip
    pictures: tuple[Picture, Picture] | None
    place: int
    scores: list[tuple[str, str]]

    @property
    def file(self) -> str:
        """Of the decoded clip, in the folder of samples."""
        return "/".join(self.clip.generated.parts[-2:])


@dataclass(frozen=True)
class Clips:
    """groups: titles and cards of what is shown large. gallery: all cards, where that is not all.

    order: a sentence. score: the name of the one by which they are ranked.
    """

    order: str
    score: str | None
    groups: list[tuple[str, list[Card]]]
    gallery: list[Card]

    @property
    def left_out(self) -> int:
        """Clips of the gallery without pictures."""
        return sum(card.pictures is None for card in self.gallery)


def clips_section(
    clips: Sequence[Clip],
    metric: str,
    *,
    lower: Collection[str],
    budget: int = MEDIA_BUDGET,
) -> Clips:
    """The clips ranked by `metric`; lower: the scores that are better the lower they are."""
    ranked = rank(clips, metric, lower=lower)
    media = _Media.choose(clips, budget)
    place = {id(clip): i for i, clip in enumerate(ranked.clips)}

    def cards(chosen: Sequence[Clip], *, always: bool) -> list[Card]:
        return [
            Card(
                clip=clip,
                pictures=media.pair(clip, always=always),
                place=place[id(clip)],
                scores=_scores(clip, leading=ranked.score),
            )
            for clip in chosen
        ]

    order, chosen = _groups(ranked)
    groups = [(title, cards(those, always=True)) for title, those in chosen]
    all_shown = sum(len(those) for _, those in chosen) == len(clips)
    gallery = [] if all_shown else cards(clips, always=False)
    return Clips(order, ranked.score, groups, gallery)


def _groups(ranked: Ranked) -> tuple[str, list[tuple[str, list[Clip]]]]:
    """How the clips are ordered, in a sentence, and which of them are shown large."""
    clips, total = ranked.clips, len(ranked.clips)
    if ranked.score is None:
        return (
            "No score was recorded for every clip, so clips stand in the order of the test set.",
            [("The first clips of the test set", clips[: 3 * SHOWN])],
        )
    if total <= 3 * SHOWN:
        return (
            f"All {total} decoded clips, ordered by their {ranked.score} score, best first.",
            [("Best to worst", clips)],
        )
    middle = total // 2 - SHOWN // 2
    return (
        f"All {total} decoded clips were ordered by their {ranked.score} score (ties by the other "
        f"scores). Shown are the {SHOWN} best, the {SHOWN} around the median and the {SHOWN} "
        "worst; nothing was picked by hand. A typical result looks like the middle row, not the "
        "first.",
        [
            ("Best", clips[:SHOWN]),
            ("Around the median", clips[middle : middle + SHOWN]),
            ("Worst", clips[-SHOWN:]),
        ],
    )


def _scores(clip: Clip, *, leading: str | None) -> list[tuple[str, str]]:
    names = sorted(clip.scores, key=lambda name: name != leading)
    return [(name, value_text(clip.scores[name])) for name in names]


# --- pictures -----------------------------------------------------------------------------------


@dataclass
class _Media:
    """Embeds clips as long as the budget lasts. GIF plays and loops in every browser with no
    setting in its way; MP4 is the smaller one, used where GIFs of all clips would be too big."""

    use_gif: bool
    left: int

    @classmethod
    def choose(cls, clips: Sequence[Clip], budget: int) -> "_Media":
        gifs = [path for clip in clips for path in (clip.generated_gif, clip.truth_gif)]
        videos = [path for clip in clips for path in (clip.generated, clip.truth)]
        if any(path is None for path in gifs):
            return cls(False, budget)
        gif_size = sum(_encoded(path) for path in gifs if path is not None)
        # Browsers play H.264, VP9 and AV1; MPEG-4 part 2, an encoder's usual fallback, they do not.
        plays = all(
            any(code in path.read_bytes() for code in (b"avc1", b"vp09", b"av01"))
            for path in videos
        )
        smaller = sum(map(_encoded, videos)) < gif_size
        return cls(gif_size <= budget or not plays or not smaller, budget)

    def pair(self, clip: Clip, *, always: bool) -> tuple[Picture, Picture] | None:
        """True and decoded, or None when they no longer fit."""
        truth = clip.truth_gif if self.use_gif else clip.truth
        generated = clip.generated_gif if self.use_gif else clip.generated
        assert truth is not None
        assert generated is not None
        size = _encoded(truth) + _encoded(generated)
        if size > self.left and not always:
            return None
        self.left -= size
        named = f"clip {clip.clip}: {clip.caption}" if clip.caption else f"clip {clip.clip}"
        return (
            _picture(truth, f"True {named}"),
            _picture(generated, f"Decoded from subject {clip.subject}, {named}"),
        )


def _encoded(path: Path) -> int:
    return 4 * math.ceil(path.stat().st_size / 3)


def _picture(path: Path, words: str) -> Picture:
    content = path.read_bytes()
    if path.suffix != ".gif":
        return Picture(data_uri(content, "video/mp4"), words)
    width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
    return Picture(data_uri(content, "image/gif"), words, width, height)
