"""The clips of the report: best, middle, worst, and all of them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def clips_section(
    clips: Sequence[Clip],
    metric: str,
    *,
    lower: Collection[str],
    budget: int = MEDIA_BUDGET,
) -> dict[str, Any]:
    """The clips ranked by `metric`; lower: the scores that are better the lower they are.

    order: a sentence; score: the name of the one that ranks; groups: titles and cards of what is
    shown large; gallery: all cards, where that is not all; left_out: how many of them have no
    pictures, as more than `budget` characters would be needed.
    """
    ranked, gifs, left = rank(clips, metric, lower=lower), _play_as_gifs(clips, budget), budget
    place = {id(clip): i for i, clip in enumerate(ranked.clips)}
    order, chosen = _groups(ranked)

    def card(clip: Clip, *, always: bool) -> dict[str, Any]:
        nonlocal left
        files = (clip.truth, clip.generated)
        if gifs and clip.truth_gif and clip.generated_gif:
            files = (clip.truth_gif, clip.generated_gif)
        size = sum(map(_encoded, files))
        shown = always or size <= left
        left -= size if shown else 0
        named = f"clip {clip.clip}: {clip.caption}" if clip.caption else f"clip {clip.clip}"
        words = (f"True {named}", f"Decoded from subject {clip.subject}, {named}")
        names = sorted(clip.scores, key=lambda name: name != ranked.score)
        return {
            "clip": clip,
            "place": place[id(clip)],
            "scores": [(name, value_text(clip.scores[name])) for name in names],
            "file": "/".join(clip.generated.parts[-2:]),
            "pictures": [_picture(*each) for each in zip(files, words, strict=True) if shown],
        }

    groups = [(title, [card(clip, always=True) for clip in those]) for title, those in chosen]
    all_shown = sum(len(those) for _, those in chosen) == len(clips)
    gallery = [] if all_shown else [card(clip, always=False) for clip in clips]
    return {
        "order": order,
        "score": ranked.score,
        "groups": groups,
        "gallery": gallery,
        "left_out": sum(not one["pictures"] for one in gallery),
    }


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
    median = clips[middle : middle + SHOWN]
    return (
        f"All {total} decoded clips were ordered by their {ranked.score} score (ties by the other "
        f"scores). Shown are the {SHOWN} best, the {SHOWN} around the median and the {SHOWN} "
        "worst; nothing was picked by hand. A typical result looks like the middle row, not the "
        "first.",
        [("Best", clips[:SHOWN]), ("Around the median", median), ("Worst", clips[-SHOWN:])],
    )


# --- pictures -----------------------------------------------------------------------------------


def _play_as_gifs(clips: Sequence[Clip], budget: int) -> bool:
    """GIF plays and loops in every browser with no setting in its way; MP4 is the smaller one, used
    where GIFs of all clips would be too big."""
    gifs = [path for clip in clips for path in (clip.truth_gif, clip.generated_gif) if path]
    videos = [path for clip in clips for path in (clip.truth, clip.generated)]
    if len(gifs) < len(videos):
        return False
    size = sum(map(_encoded, gifs))
    # Browsers play H.264, VP9 and AV1; MPEG-4 part 2, an encoder's usual fallback, they do not.
    plays = (
        any(code in path.read_bytes() for code in (b"avc1", b"vp09", b"av01")) for path in videos
    )
    return size <= budget or sum(map(_encoded, videos)) >= size or not all(plays)


def _encoded(path: Path) -> int:
    """Characters of a file in a page."""
    return 4 * math.ceil(path.stat().st_size / 3)


def _picture(path: Path, words: str) -> Picture:
    content = path.read_bytes()
    if path.suffix != ".gif":
        return Picture(data_uri(content, "video/mp4"), words)
    width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
    return Picture(data_uri(content, "image/gif"), words, width, height)
