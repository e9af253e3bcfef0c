"""The model card of an exported decoder: Markdown, as hubs show it."""

from collections.abc import Mapping, Sequence
from typing import Any

from glfa_jax.method import method_name, training_words
from glfa_jax.results import protocol_text
from glfa_jax.trained import Trained

# Of weights whose licence nobody has stated.
UNSTATED = "other"
_UNSTATED_NOTE = (
    "Not stated. The code is under Apache-2.0. The weights derive from the foundation models "
    "({foundation}) and from fMRI: whoever publishes them checks the licences of both, and says "
    "here which one holds."
)


LIMITS = (
    "A decoder shows what its generator can draw and its training subjects' stimuli have taught "
    "it. Its videos are reconstructions with errors, and no record of what a person thought or saw."
)


def model_card(name: str, trained: Trained, *, licence: str | None = None) -> str:
    """The text of README.md; licence: an SPDX identifier."""
    settings, identity = trained.settings, trained.trained_on.timing.identity
    protocol, data = settings.protocol, settings.data
    window, frames = (
        f"(clips, {', '.join(map(str, shape))})"
        for shape in (trained.maps_shape, trained.video_shape)
    )
    subjects = ", ".join(protocol.train_subjects)
    header = [
        "---",
        f"license: {(licence or UNSTATED).lower()}",
        "library_name: glfa_jax",
        "tags: [fmri, neuroscience, brain-decoding, text-to-video, jax]",
        "---",
    ]
    text = [
        f"# {name}",
        f"Decodes fMRI into video: {method_name(settings)}, trained with glfa_jax.",
        "## Use",
        "```python\n"
        "import glfa_jax\n\n"
        'decoder = glfa_jax.load("FOLDER")         # this folder, or glfa_jax.from_pretrained(ID)\n'
        f'video = decoder.decode(maps, subject="{protocol.test_subjects[0]}")\n'
        "```",
        f"`maps`: float {window}, z-scored within a run, zero outside the cortex, {data.window} "
        f"volumes of a clip from {data.lag_seconds:g} s after its start. `video`: uint8 "
        f"{frames}, RGB.",
        "## Training",
        _table(
            ("", ""),
            [
                ("Training subjects", subjects),
                ("Protocol", protocol_text(protocol.kind(), protocol.pretraining, data.world)),
                ("Data", f"{data.layout}, space {data.space}, identity `{identity}`"),
                ("Training", training_words(settings)),
                ("Foundation models", f"`{settings.foundation.name}`"),
                ("Seed", str(settings.seed)),
            ],
        ),
        "Every option is in `config.yaml`.",
        "## Results",
        _results(trained.metrics),
        "## Licence",
        licence or _UNSTATED_NOTE.format(foundation=settings.foundation.name),
        "## Limits",
        LIMITS,
    ]
    return "\n".join(header) + "\n\n" + "\n\n".join(text) + "\n"


def _results(metrics: Sequence[Mapping[str, Any]]) -> str:
    if not metrics:
        return "This run was not scored."
    rows = [
        (
            str(line["subject"]),
            f"{line['metric']} ({line['variant']})",
            f"{line['mean']:.3f} ± {line['std']:.3f}",
            "–" if line.get("chance") is None else f"{line['chance']:.3f}",
            str(line["n"]),
        )
        for line in metrics
    ]
    return _table(("subject", "metric", "mean ± std over clips", "chance", "clips"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
