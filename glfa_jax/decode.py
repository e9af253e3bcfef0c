"""Decodes the scans of any run into video, with no study configured.

    python -m glfa_jax.decode MODEL sub-04_hemi-L_bold.func.gii sub-04_hemi-R_bold.func.gii \\
        --events sub-04_events.tsv --out decoded

MODEL is a finished run's folder or an exported decoder. The scans are cleaned and drawn as those
were that it was trained on. With --events there is a clip at every event, with --films clips of a
film; with neither, the whole run is cut into clips. DIR/index.html shows what was decoded, beside
what was shown where its file is there; clips.tsv lists it. The same command goes on after a stop.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glfa_jax import config
from glfa_jax.alignments import SHARED
from glfa_jax.api import load
from glfa_jax.cli import guarded
from glfa_jax.data.one_run import NEW
from glfa_jax.decoder import Decoder
from glfa_jax.decoding import folder
from glfa_jax.decoding.aligning import aligned_to
from glfa_jax.errors import InputError
from glfa_jax.lock import only_one
from glfa_jax.method import method_name
from glfa_jax.report import decoded
from glfa_jax.report.words import count_text, subjects_text
from glfa_jax.results import Sampling
from glfa_jax.starting import typed
from glfa_jax.trained.card import LIMITS
from glfa_jax.trained.scans import RunMaps
from glfa_jax.training.loop import use_compilation_cache

SAMPLES = 2
_SHARED = "the layer that all subjects share"
_TRANSDUCTIVE = (
    "The alignment was fitted to these very maps, with nothing known of what they show. That is a "
    "result of another kind than with a layer that was fitted before, and cannot be compared with "
    "one."
)


def command(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    return guarded(lambda: _decode(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=typed("glfa_jax.decode"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a finished run, or an export")
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="scans of one run: GIFTI left and right, one dense CIFTI series, or one NIfTI",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--events", type=Path, metavar="TABLE", help="BIDS events.tsv with onset")
    shown.add_argument(
        "--films",
        action="append",
        default=[],
        metavar="FILE,onset=S,start=S,duration=S",
        help="a film that the run shows; may be given several times, FILE alone is enough",
    )
    parser.add_argument("--stimuli", type=Path, metavar="DIR", help="where shown files lie")
    parser.add_argument("--confounds", type=Path, metavar="TABLE", help="fMRIPrep's, if needed")
    parser.add_argument(
        "--repetition-time",
        type=float,
        metavar="S",
        help="where the files are mute or wrong",
    )
    parser.add_argument("--subject", metavar="NAME", help="whose layer to use; left out: new")
    parser.add_argument(
        "--align",
        choices=["unlabelled"],
        help="fit a layer to the maps of this very run first, without labels",
    )
    parser.add_argument("--method", help="of --align, in place of the model's own, such as warp")
    parser.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        metavar="K",
        help=f"videos of a clip, by which their agreement is measured; {SAMPLES} if left out",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of evaluation, seed or data.drop_volumes, such as evaluation.sampling_steps=50",
    )
    return parser


def _decode(given: argparse.Namespace) -> None:
    if given.samples < 1:
        raise InputError(f"--samples: {given.samples}, must be 1 or more")
    if given.method and not given.align:
        raise InputError("--method: is that of --align; give both or neither")
    if given.align and given.subject:
        raise InputError("--subject: has a layer already; leave it out with --align")
    folder.check_free(given.out)
    use_compilation_cache()
    decoder = _with_options(load(given.model), given.set)
    words = "" if given.align else _layer(decoder, given.subject)
    run = decoder.maps_of(
        given.files,
        events=given.events,
        films=given.films,
        stimuli=given.stimuli,
        confounds=given.confounds,
        repetition_time=given.repetition_time,
    )
    subject = given.subject
    if given.align:
        decoder, words = aligned_to(decoder, run, method=given.method)
        subject = NEW
    ours = folder.settings_of(decoder, run, subject=subject, samples=given.samples, alignment=words)
    with only_one(given.out):
        folder.check_same(given.out, ours)
        folder.decode(decoder, run, given.out, subject=subject, samples=given.samples)
        rows = folder.write_videos(decoder, run, given.out)
        folder.write_table(given.out, rows, alignment=words)
        page = decoded.write(
            given.out,
            rows,
            name=_named(run),
            facts=_facts(decoder, run, given, words),
            samples=given.samples,
            notes=_notes(run),
            warning=_TRANSDUCTIVE if given.align else "",
            limits=LIMITS,
        )
    for note in _notes(run):
        print(f"  note: {note}")
    print(f"decoded {count_text(len(run), 'clip')}: {page}", flush=True)


def _with_options(decoder: Decoder, sets: Sequence[str]) -> Decoder:
    """With other options of sampling; raises InputError for what the training decided."""
    for one in sets:
        key = one.partition("=")[0].strip()
        if not key.startswith("evaluation.") and key not in ("seed", "data.drop_volumes"):
            raise InputError(
                f"--set: {key} is as the decoder was trained; only evaluation.*, seed and "
                "data.drop_volumes can be chosen here"
            )
    return (
        replace(decoder, settings=config.overridden(decoder.settings, list(sets)))
        if sets
        else decoder
    )


def _layer(decoder: Decoder, subject: str | None) -> str:
    """Which layer the maps go through, in words; raises InputError where there is none."""
    whose = decoder.layer_of(subject)
    if decoder.settings.method == "lea" or (
        whose == SHARED and not decoder.settings.aligned and not decoder.fitted
    ):
        return "none"
    return _SHARED if whose == SHARED else f"the layer of subject {whose}"


def _facts(
    decoder: Decoder, run: RunMaps, given: argparse.Namespace, words: str
) -> list[tuple[str, str]]:
    settings = decoder.settings
    evaluation = settings.evaluation
    sampling = Sampling(evaluation.sampler, evaluation.sampling_steps, evaluation.guidance_scale)
    how = "a clip after the other over the whole run"
    if given.events:
        how = f"at the events of {given.events.name}"
    elif given.films:
        how = f"of {', '.join(given.films)}"
    return [
        ("Scans", ", ".join(scan.name for scan in run.run.scans)),
        ("Clips", how),
        ("Model", f"{method_name(settings)}, {given.model}"),
        ("Trained on", subjects_text(settings.protocol.train_subjects)),
        *([("Simulated subjects", settings.data.world)] if settings.data.world else []),
        ("Cleaning", run.cleaning),
        ("Alignment", words),
        ("Sampling", str(sampling)),
    ]


def _named(run: RunMaps) -> str:
    """The run as its file's name has it."""
    run_of = run.run
    return run_of.name if run_of.subject == NEW else f"subject {run_of.subject}, {run_of.name}"


def _notes(run: RunMaps) -> list[str]:
    """What deserves a look, a sentence each."""
    notes = list(run.notes)
    if run.left_out:
        names = ", ".join(run.left_out[:5]) + (", ..." if run.left_out[5:] else "")
        clips = count_text(len(run.left_out), "clip")
        notes.append(f"{clips} left out, whose window is not wholly in the run: {names}")
    return notes


if __name__ == "__main__":
    sys.exit(command())
