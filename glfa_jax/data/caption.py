"""Captions for a study that has none, by an image captioner: BLIP, BLIP-2 or GIT.

    python -m glfa_jax.data.caption --config configs/mystudy.yaml --model models/blip

Writes captions.tsv, and captions.html, on which to read and correct them. The captioner sees some
frames of each clip; the caption that most of them have is taken. Whoever wrote or checked a caption
keeps it: a later run writes only what is missing, and what another model wrote.

Needs PyTorch: pip install 'glfa_jax[caption]'.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from glfa_jax import config
from glfa_jax.captioning import table, work
from glfa_jax.captioning.captioner import Captioner
from glfa_jax.cli import run_main
from glfa_jax.data.layouts import Problems, layout_of
from glfa_jax.data.layouts.reading import read_wordless
from glfa_jax.errors import InputError
from glfa_jax.report import captions as page
from glfa_jax.report.pictures import still
from glfa_jax.starting import typed

FRAMES, BATCH, BEAMS, TOKENS = 3, 8, 1, 30
OPTIONS = {
    "model": {
        "required": True,
        "metavar": "MODEL",
        "help": "the captioner: a folder of transformers, or owner/name on the hub, such as "
        "Salesforce/blip2-opt-2.7b",
    },
    "revision": {"metavar": "R", "help": "of a model on the hub: branch, tag or commit"},
    "frames": {
        **{"type": int, "default": FRAMES, "metavar": "N"},
        "help": f"of each clip that are looked at, spread over it; {FRAMES} by default",
    },
    "beams": {
        **{"type": int, "default": BEAMS, "metavar": "N"},
        "help": f"of the search for the likeliest words; {BEAMS} by default",
    },
    "tokens": {
        **{"type": int, "default": TOKENS, "metavar": "N"},
        "help": f"of a caption, at most; {TOKENS} by default",
    },
    "batch": {
        **{"type": int, "default": BATCH, "metavar": "N"},
        "help": f"frames that the captioner sees at a time; {BATCH} by default",
    },
    "out": {
        **{"type": Path, "metavar": "FILE.tsv"},
        "help": "the table; data.captions, or captions.tsv beside the clips if left out",
    },
}


def main(
    settings: config.Config,
    *,
    model: str,
    revision: str | None,
    frames: int,
    beams: int,
    tokens: int,
    batch: int,
    out: Path | None,
) -> None:
    counts = {"frames": frames, "beams": beams, "tokens": tokens, "batch": batch}
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"--{name}: must be at least 1, got {value}")
    data = settings.data
    problems = Problems(skip=data.on_error == "skip")
    study = read_wordless(data, problems)
    for line in problems.missing.lines:
        print(line)
    target = out or data.captions or work.place_of(study)
    table.read(target)  # rejected before a large model is loaded
    captioner = Captioner.load(model, revision=revision, beams=beams, tokens=tokens)
    recipe = f"{captioner.name}, frames {frames}, beams {beams}, tokens {tokens}"
    written = work.caption(
        study,
        target,
        captioner,
        recipe=recipe,
        frames=frames,
        batch=batch,
        problems=problems,
    )
    divided = [clip for clip, entry in written.entries.items() if table.is_divided(entry)]
    shown = target.with_suffix(".html")
    page.write(
        shown,
        list(written.entries.values()),
        {
            clip: still(frame, words=f"Middle frame of {clip}")
            for clip, frame in work.middle_frames(study, widest=page.WIDEST)
        },
        table=target,
        divided=divided,
        others=list(written.others.values()),
    )
    for sentence in dict.fromkeys(problems.noted):
        print(f"warning: {sentence}")
    print(f"captions: {target} ({written.made} written now, {written.kept} kept)")
    print(f"page: {shown} (open it in a browser; frames of {len(divided)} clips disagree)")
    if target != data.captions and not (
        layout_of(data).finds_captions and target == work.place_of(study)
    ):
        print(f"set data.captions: {target}")
    print(f"next: {typed('glfa_jax.data.prepare')} with the same --config")


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(
        main, arguments, command="glfa_jax.data.caption", description=__doc__, options=OPTIONS
    )


if __name__ == "__main__":
    sys.exit(command())
