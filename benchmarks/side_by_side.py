"""The same generator in glfa_jax and in torch (diffusers): one set of weights, two processes.

Every side lives in a process of its own, so that neither's memory counts with the other's, and
answers calls in turns. Its weights lie in a folder as a user would have them on disk.
"""

import argparse
import ctypes
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import write_result
from glfa_jax.files import read_object

PUBLISHED = Path(__file__).parents[1] / "foundation" / "modelscope" / "text-to-video"
SCHEDULE = PUBLISHED / "scheduler" / "scheduler_config.json"
NARROW_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}


class Size(NamedTuple):
    """frames, side of a latent, tokens of a condition, clips of a batch when none are asked for."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    frames: int
    side: int
    tokens: int
    rows: int


def _vae(*widths: int, layers: int, groups: int) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "latent_channels": 4,
    }


def _unet(*widths: int, layers: int, groups: int, head: int, conditioning: int) -> dict[str, Any]:
    return NARROW_UNET | {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "attention_head_dim": head,
        "cross_attention_dim": conditioning,
    }


def sizes(name: str) -> Size:
    """`full` is ModelScope's at the published 6 frames of 256x256 pixels; `tiny` is for a try."""
    if name == "full":
        unet, vae = (read_object(PUBLISHED / part / "config.json") for part in ("unet", "vae"))
        return Size(unet, vae, frames=6, side=32, tokens=77, rows=4)
    if name == "small":
        unet = _unet(32, 64, layers=2, groups=8, head=16, conditioning=64)
        return Size(unet, _vae(16, 32, 64, layers=1, groups=8), 4, side=16, tokens=24, rows=2)
    unet = _unet(8, layers=1, groups=4, head=4, conditioning=8)
    unet |= {"down_block_types": ("CrossAttnDownBlock3D",)}
    unet |= {"up_block_types": ("CrossAttnUpBlock3D",)}
    return Size(unet, _vae(8, layers=1, groups=4), frames=2, side=4, tokens=3, rows=2)


def write_models(folder: Path, size: Size, *, vae: bool) -> None:
    """Random weights that keep the scale of what they are given, as diffusers stores them."""
    import diffusers
    import torch

    wanted = {"unet": (diffusers.UNet3DConditionModel, size.unet)}
    if vae:
        wanted["vae"] = (diffusers.AutoencoderKL, size.vae)
    generator = torch.Generator().manual_seed(0)
    for name, (kind, config) in wanted.items():
        options = {key: value for key, value in config.items() if key != "_class_name"}
        with torch.device("meta"):  # PyTorch's own initialisation would only cost time
            model = kind(**options)
        model = model.to_empty(device="cpu").requires_grad_(False)
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            else:
                scales = "norm" in key and key.endswith("weight")
                parameter.normal_(mean=float(scales), std=0.1, generator=generator)
        model.save_pretrained(folder / name)


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """What both comparisons can be told."""
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--variants", nargs="+", help="settings of torch; all when left out")
    parser.add_argument("--json", type=Path, help="where to write the result")


def conclude(
    facts: dict[str, Any],
    ours: dict[str, Any],
    theirs: list[dict[str, Any]],
    *,
    seconds: str,
    columns: dict[str, Callable[[dict[str, Any]], str]],
    path: Path | None,
) -> None:
    """Prints both sides as a table and the ratio to torch at its best; writes all where asked.

    seconds: the key of the time that decides. columns: title to the cell of a row.
    """
    best = min(theirs, key=lambda row: row[seconds])
    ratio = best[seconds] / ours[seconds]
    titles = ["", *columns, "MiB", "compile or first call, s"]
    lines = [titles, ["---"] * len(titles)]
    for name, row in [("glfa_jax", ours), *((f"torch, {row['variant']}", row) for row in theirs)]:
        begin = row.get("compile_seconds", row["first_call_seconds"])
        cells = [cell(row) for cell in columns.values()]
        lines.append([name, *cells, f"{row['memory_bytes'] / 2**20:.0f}", f"{begin:.1f}"])
    print("\n".join("| " + " | ".join(cells) + " |" for cells in lines))
    print(f"torch at its best ({best['variant']}) takes {ratio:.2f} times as long as glfa_jax")
    if path:
        result = facts | {
            "jax": ours,
            "torch": theirs,
            "best_torch": best["variant"],
            "torch_over_jax": ratio,
            "memory_torch_over_jax": best["memory_bytes"] / ours["memory_bytes"],
        }
        write_result(path, result, packages=("jax", "jaxlib", "flax", "torch", "diffusers"))


def require_torch() -> None:
    """Ends the program where there is nothing to compare with."""
    missing = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"this benchmark compares with diffusers' models on torch: {' and '.join(missing)} not "
            "installed; pip install 'glfa_jax[test]'"
        )


def torch_device() -> str:
    """Where torch runs: on the GPU where JAX does, else on the CPU."""
    import jax
    import torch

    if jax.default_backend() != "gpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("JAX sees a GPU and torch does not: install a torch with CUDA")
    return "cuda"


def channels_first(x: np.ndarray) -> np.ndarray:
    """(b, f, h, w, c) to torch's (b, c, f, h, w)."""
    return np.ascontiguousarray(x.transpose(0, 4, 1, 2, 3))


def channels_last(model: Any) -> None:
    """Lays out the kernels of torch's convolutions so that activations follow."""
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


class Memory:
    """What a side needs: the device's peak or, on a CPU, what it holds and what a call adds."""

    def __init__(self, peak: Callable[[], int] | None):
        """peak: the device's, in bytes; None on a CPU."""
        self._peak = peak

    def of(self, call: Callable[[], Any], *, held: int) -> int:
        """Bytes. On a CPU `held` and by how much one call raises resident memory (Linux)."""
        if self._peak is not None:
            call()
            return self._peak()
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls and the compiler have freed
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        call()
        return held + _status("VmHWM") - before


def device_peak() -> Callable[[], int]:
    """Of JAX's first device."""
    import jax

    device: Any = jax.devices()[0]
    return lambda: device.memory_stats()["peak_bytes_in_use"]


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


class Side:
    """An object made and kept in a process of its own; its methods are called by name."""

    def __init__(self, make: Callable[..., Any], /, *arguments: Any, **options: Any):
        # One process beside another cannot have three quarters of a GPU's memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, arguments, options), daemon=True
        )
        self._process.start()
        theirs.close()
        self._receive()

    def __call__(self, method: str, /, **options: Any) -> Any:
        self._connection.send((method, options))
        return self._receive()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(20)
        self._process.kill()

    def _receive(self) -> Any:
        try:
            worked, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"a side of the comparison ended with exit code {self._process.exitcode} (-9: it "
                "ran out of memory)"
            ) from None
        if not worked:
            raise RuntimeError(answer)
        return answer


def _serve(connection: Any, make: Callable, arguments: tuple, options: dict) -> None:
    try:
        made = make(*arguments, **options)
        connection.send((True, None))
        while True:
            method, given = connection.recv()
            connection.send((True, getattr(made, method)(**given)))
    except EOFError:  # nobody asks any more
        return
    except Exception as error:  # told to who asked
        connection.send((False, f"{type(error).__name__}: {error}"))
        raise
