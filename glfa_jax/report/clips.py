"""The clips of the report: best, middle, worst, and all of them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from glfa_jax.report import figures
from glfa_jax.report.html import escape
from glfa_jax.report.inputs import Clip
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

    def pair(self, clip: Clip, *, always: bool) -> str | None:
        """Both pictures, or None when they no longer fit."""
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
            f"<div>{_picture(truth, f'True {named}')}<span>true</span></div>"
            f"<div>{_picture(generated, f'Decoded from subject {clip.subject}, {named}')}"
            "<span>decoded</span></div>"
        )


def _encoded(path: Path) -> int:
    return 4 * math.ceil(path.stat().st_size / 3)


def _picture(path: Path, words: str) -> str:
    content, words = path.read_bytes(), escape(words)
    if path.suffix != ".gif":
        source = figures.data_uri(content, "video/mp4")
        return (
            f'<video src="{source}" aria-label="{words}" autoplay muted loop playsinline></video>'
        )
    width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
    tiny = ' class="tiny"' if width <= 128 else ""
    source = figures.data_uri(content, "image/gif")
    return f'<img{tiny} src="{source}" width="{width}" height="{height}" alt="{words}">'


def _card(clip: Clip, *, pictures: str | None, rank: int, leading: str | None) -> str:
    names = [leading] if leading else []
    names += [name for name in clip.scores if name != leading]
    scores = "".join(
        f"<span>{escape(name)} <b>{value_text(clip.scores[name])}</b></span> " for name in names
    )
    if pictures is None:
        pictures = f"<span>see samples/{escape('/'.join(clip.generated.parts[-2:]))}</span>"
    return (
        f'<figure class="clip" style="--rank:{rank}"><div class="pair">{pictures}</div>'
        f'<figcaption><span class="caption">{escape(clip.caption or "(no caption)")}</span>'
        f'<span class="scores">clip {escape(clip.clip)}, subject {escape(clip.subject)}</span>'
        f'<span class="scores row">{scores.rstrip()}</span></figcaption></figure>'
    )


def clips_section(
    clips: Sequence[Clip],
    metric: str,
    *,
    lower: Collection[str],
    budget: int = MEDIA_BUDGET,
) -> str:
    ranked = rank(clips, metric, lower=lower)
    media = _Media.choose(clips, budget)
    place = {id(clip): i for i, clip in enumerate(ranked.clips)}
    total = len(clips)

    def cards(chosen: Sequence[Clip], *, always: bool) -> str:
        return "".join(
            _card(
                clip,
                pictures=media.pair(clip, always=always),
                rank=place[id(clip)],
                leading=ranked.score,
            )
            for clip in chosen
        )

    if ranked.score is None:
        order = "No score was recorded for every clip, so clips stand in the order of the test set."
        groups = [("The first clips of the test set", ranked.clips[: 3 * SHOWN])]
    elif total <= 3 * SHOWN:
        order = f"All {total} decoded clips, ordered by their {ranked.score} score, best first."
        groups = [("Best to worst", ranked.clips)]
    else:
        middle = total // 2 - SHOWN // 2
        order = (
            f"All {total} decoded clips were ordered by their {ranked.score} score (ties by the "
            f"other scores). Shown are the {SHOWN} best, the {SHOWN} around the median and the "
            f"{SHOWN} worst; nothing was picked by hand. A typical result looks like the middle "
            "row, not the first."
        )
        groups = [
            ("Best", ranked.clips[:SHOWN]),
            ("Around the median", ranked.clips[middle : middle + SHOWN]),
            ("Worst", ranked.clips[-SHOWN:]),
        ]
    out = [f"<p>{escape(order)}</p>"]
    for name, chosen in groups:
        shown = cards(chosen, always=True)
        out.append(f'<h3>{name}</h3><div class="clips">{shown}</div>')
    if sum(len(chosen) for _, chosen in groups) < total:
        grid = cards(clips, always=False)
        missing = grid.count("<span>see samples/")
        rest = (
            f'<p class="note">To keep this page small, {missing} of them are named by their file '
            "in the run folder and not shown.</p>"
            if missing
            else ""
        )
        choice = (
            '<div class="order" role="radiogroup" aria-label="Order of the clips">'
            '<label><input type="radio" name="order" checked> order of the test set</label>'
            '<label><input type="radio" name="order" class="by-score"> by '
            f"{escape(ranked.score)} score, best first</label></div>"
            if ranked.score
            else ""
        )
        out.append(
            f'<details class="gallery"><summary>Browse all {total} decoded clips</summary>'
            f'{rest}{choice}<div class="clips small">{grid}</div></details>'
        )
    return "\n".join(out)
