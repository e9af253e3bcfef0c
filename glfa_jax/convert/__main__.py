"""Converts models between PyTorch's files and ours, and compares the two.

    python -m glfa_jax.convert import  --kind text_to_video --source zeroscope --target models/t2v
    python -m glfa_jax.convert import  --kind text_to_video --source Wan2.1-T2V-1.3B-Diffusers \\
                                       --target models/wan
    python -m glfa_jax.convert export  --kind fmri_encoder --source runs/a/cotrain/model/encoder \\
                                       --target encoder.pth
    python -m glfa_jax.convert inspect --source checkpoint.pth
    python -m glfa_jax.convert verify  --kind vae --source zeroscope/vae
    python -m glfa_jax.convert lora    --source kohya.safetensors --base zeroscope/unet \\
                                       --target lora
"""

import argparse
import sys
from typing import Any

from glfa_jax.cli import guarded
from glfa_jax.starting import typed

# As the modules that do the work list them; those import jax, and --help need not wait for it.
KINDS = (
    *("unet3d", "vae", "wan", "wan_vae", "clip", "clip_text", "umt5_text", "vit", "video_mae"),
    *("fmri_autoencoder", "fmri_encoder", "lea", "text_to_video"),
)
DTYPES = ("float32", "bfloat16", "stored")
LAYOUTS = ("peft", "diffusers")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=typed("glfa_jax.convert"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, says: str, *, kind_required: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=says, description=says)
        sub.add_argument("--kind", required=kind_required, choices=KINDS)
        sub.add_argument(
            "--source",
            required=True,
            metavar="PLACE",
            help="a folder, an official .pth, or hub:owner/name",
        )
        return sub

    def add_download(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--allow-download", action="store_true", help="take owner/name from the hub"
        )

    def add_reading(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--variant", help="of the weights' files, such as fp16")
        add_download(sub)
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="of an official checkpoint's architecture, such as num_heads=8",
        )

    def add_writing(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--target", required=True, metavar="PLACE", help="new or an empty folder")
        sub.add_argument("--dtype", choices=DTYPES, default="stored", help="default: %(default)s")
        sub.add_argument("--shard-size", metavar="SIZE", help="split larger files, such as 5GB")

    def add_lora(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--lora", metavar="PLACE", help="to merge into the denoiser: a file or a folder"
        )
        sub.add_argument(
            "--lora-strength", type=float, default=1.0, metavar="X", help="default: %(default)s"
        )

    sub = command("import", "makes a folder of ours from PyTorch's files")
    add_reading(sub)
    add_writing(sub)
    sub.add_argument(
        "--drop-decoder", action="store_true", help="leave out the fMRI autoencoder's decoder"
    )
    add_lora(sub)
    sub = command("export", "makes PyTorch's files from a folder of ours")
    add_writing(sub)
    sub.add_argument(
        "--decoder", metavar="FOLDER", help="a fmri_autoencoder, for an encoder's .pth"
    )
    sub.add_argument("--module-prefix", action="store_true", help="begin names in a .pth with it")
    sub = command("inspect", "says what a source holds", kind_required=False)
    add_reading(sub)
    sub = command("verify", "runs a source in PyTorch and in JAX and compares the outputs")
    add_reading(sub)
    sub.add_argument("--target", metavar="FOLDER", help="what was imported; else imported anew")
    add_lora(sub)
    sub.add_argument("--gradients", action="store_true", help="compare all gradients too")
    says = "converts a LoRA of a denoiser from one layout to another"
    sub = commands.add_parser("lora", help=says, description=says)
    sub.add_argument("--source", required=True, metavar="PLACE", help="a file or a folder")
    sub.add_argument("--base", required=True, metavar="FOLDER", help="the model that it adapts")
    sub.add_argument("--target", required=True, metavar="FOLDER", help="new or an empty folder")
    sub.add_argument("--layout", choices=LAYOUTS, default="peft", help="default: %(default)s")
    add_download(sub)
    return parser


def command(argv: list[str] | None = None) -> int:
    """The exit code: 0, 1 when a verification failed, 2 for bad input."""
    arguments = _parser().parse_args(argv)
    passed: list[bool] = []
    code = guarded(lambda: passed.append(_run(arguments)), after_stop="nothing was written")
    return code or int(passed == [False])


def _run(arguments: argparse.Namespace) -> bool:
    """Runs the command; whether what it compared, if anything, agrees."""
    commands = {"import": _import, "export": _export, "inspect": _inspect, "lora": _lora}
    if arguments.command == "verify":
        return _verify(arguments)
    print(commands[arguments.command](arguments))
    return True


def _import(arguments: argparse.Namespace) -> str:
    from glfa_jax.convert.transfer import import_model

    models = import_model(
        arguments.kind,
        arguments.source,
        arguments.target,
        drop_decoder=arguments.drop_decoder,
        lora=arguments.lora,
        lora_strength=arguments.lora_strength,
        allow_download=arguments.allow_download,
        **_reading(arguments),
        **_writing(arguments),
    )
    return _written(arguments, models) + (" with the LoRA merged in" if arguments.lora else "")


def _export(arguments: argparse.Namespace) -> str:
    from glfa_jax.convert.transfer import export_model

    models = export_model(
        arguments.kind,
        arguments.source,
        arguments.target,
        decoder=arguments.decoder,
        module_prefix=arguments.module_prefix,
        **_writing(arguments),
    )
    return _written(arguments, models)


def _inspect(arguments: argparse.Namespace) -> str:
    from glfa_jax.convert.describe import inspect
    from glfa_jax.convert.sources import locate

    place = locate(arguments.source, allow_download=arguments.allow_download)
    return inspect(place, kind=arguments.kind, **_reading(arguments))


def _verify(arguments: argparse.Namespace) -> bool:
    from glfa_jax.convert.sources import locate
    from glfa_jax.convert.verify import verify

    place = locate(arguments.source, allow_download=arguments.allow_download)
    options = {"target": arguments.target, "gradients": arguments.gradients}
    if arguments.lora is not None:
        options["lora"] = locate(arguments.lora, allow_download=arguments.allow_download)
    options["lora_strength"] = arguments.lora_strength
    report = verify(arguments.kind, place, **options, **_reading(arguments))
    print(report)
    return report.passed


def _lora(arguments: argparse.Namespace) -> str:
    from glfa_jax.convert.lora_file import convert_lora

    found = convert_lora(
        arguments.source,
        arguments.target,
        base=arguments.base,
        layout=arguments.layout,
        allow_download=arguments.allow_download,
    )
    return f"{arguments.target}: {len(found.modules)} adapted layers of {arguments.source}"


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    from glfa_jax.convert.transfer import parse_given

    return {"variant": arguments.variant, "given": parse_given(arguments.set)}


def _writing(arguments: argparse.Namespace) -> dict[str, Any]:
    from glfa_jax.convert.stream import bytes_of

    size = arguments.shard_size
    return {"dtype": arguments.dtype, "shard_size": None if size is None else bytes_of(size)}


def _written(arguments: argparse.Namespace, models: list[Any]) -> str:
    count = sum(len(model.tensors) + len(model.extra) for model in models)
    return f"{arguments.target}: {count} tensors of {arguments.source}"


if __name__ == "__main__":
    sys.exit(command())
