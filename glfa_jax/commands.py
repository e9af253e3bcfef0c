"""`glfa-jax SUBCOMMAND`: every command of the package by its short name.

In a checkout each can also be typed by its module, as in `python -m train.cotrain`.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from glfa_jax import __version__


class Command(NamedTuple):
    """module: holds `command(arguments) -> exit code`. says: what it does, in one line."""

    module: str
    says: str


COMMANDS = {
    "prepare": Command("glfa_jax.data.prepare", "scans and clips to a prepared store"),
    "look": Command("glfa_jax.data.look", "a page that shows a prepared store"),
    "caption": Command("glfa_jax.data.caption", "writes captions of clips, where there are none"),
    "simulate": Command("glfa_jax.simulate.__main__", "writes a simulated study"),
    "pretrain": Command("glfa_jax.stages.pretrain", "fine-tunes the fMRI autoencoder"),
    "contrast": Command("glfa_jax.stages.contrast", "stage 1: fMRI against CLIP"),
    "cotrain": Command("glfa_jax.stages.cotrain", "stage 2, and earlier stages that are missing"),
    "latents": Command("glfa_jax.stages.latents", "keeps the VAE's latents of the training clips"),
    "adapt": Command("glfa_jax.stages.adapt", "fits the alignment to a new subject"),
    "sample": Command("glfa_jax.evaluation.sample", "decodes the test clips into video"),
    "score": Command("glfa_jax.evaluation.score", "scores decoded clips and writes the report"),
    "sweep": Command("glfa_jax.evaluation.sweep", "samples and scores under many settings"),
    "explain": Command("glfa_jax.evaluation.explain", "which cortex the decoded clips rest on"),
    "compare": Command("glfa_jax.evaluation.compare", "compares scored runs"),
    "study": Command("glfa_jax.evaluation.study", "trains and compares methods over seeds"),
    "decode": Command("glfa_jax.decode", "decodes the scans of any run, no study configured"),
    "export": Command("glfa_jax.export", "a decoder as one folder that travels alone"),
    "report": Command("glfa_jax.report.__main__", "writes the report of a run again"),
    "sheet": Command("glfa_jax.report.sheet", "one image of decoded clips"),
    "convert": Command("glfa_jax.convert.__main__", "PyTorch checkpoints in and out"),
    "fetch": Command("glfa_jax.data.fetch", "writes fsLR surfaces and areas of the HCP"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the subcommand; 2 where there is none of that name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(_usage())
        return 0 if given else 2
    if name == "--version":
        print(f"glfa-jax {__version__}")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: {name!r:.200}: no such command, must be one of {known}", file=sys.stderr)
        return 2
    command: Callable[[Sequence[str]], int] = import_module(COMMANDS[name].module).command
    return command(given[1:])


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.says}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: glfa-jax COMMAND ...", "", *lines, "", "glfa-jax COMMAND --help says more."]
    )
