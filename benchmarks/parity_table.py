"""Writes docs/parity.md: what the conversion covers, and how far PyTorch and JAX differ.

    python -m benchmarks.parity_table [--out docs/parity.md]

Tensors and parameters are counted at the published sizes, without allocating them; differences are
measured by `glfa_jax.convert.verify` on small models of random weights.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import jax
import torch
import transformers

from benchmarks import models, unet3d_parity
from benchmarks.measuring import table as markdown
from glfa_jax.convert import pretrained
from glfa_jax.convert.verify import TOLERANCE, Comparison, verify

ROOT = Path(__file__).parents[1]
_SMALL_TOWER = models.small_transformer(32, inner=64, heads=4, layers=2)
_SMALL_TEXT = _SMALL_TOWER | {
    "vocab_size": 50,
    "max_position_embeddings": 12,
    "bos_token_id": 48,
    "eos_token_id": 49,
}
_SMALL_IMAGE = _SMALL_TOWER | {"image_size": 32, "patch_size": 8}
_TEXT_H = models.small_transformer(1024, inner=4096, heads=16, layers=24)
_VISION_H = models.small_transformer(1280, inner=5120, heads=16, layers=32) | {"patch_size": 14}
_FMRI = {"height": 256, "width": 256}
_SMALL_FMRI = {"height": 32, "width": 32, "patch_size": 8, "dim": 32, "depth": 2, "num_heads": 4}
_PYTORCH = "safetensors or `.bin`, one file or shards, variants"
_OURS = "official `.pth`, with or without `module.`; run folders"


class Row(NamedTuple):
    """A kind of model: `published` and `small` configurations, layouts that are read."""

    kind: str
    model: str
    published: dict[str, Any]
    small: dict[str, Any]
    layouts: str


ROWS = (
    Row(
        "unet3d",
        "UNet3D (ModelScope T2V, zeroscope_v2_576w)",
        models.UNET,
        models.small_unet(16, 32, groups=8, head=8, condition=24),
        _PYTORCH,
    ),
    Row(
        "wan",
        "Transformer of Wan 2.1 (T2V 1.3B)",
        models.WAN,
        models.small_wan(heads=2, head=12, inner=40, layers=2, condition=20),
        _PYTORCH,
    ),
    Row(
        "vae",
        "VAE (Stable Diffusion, in both pipelines)",
        models.VAE,
        models.small_vae(16, 32, groups=8),
        f"{_PYTORCH}; attention names of before diffusers 0.18",
    ),
    Row(
        "wan_vae",
        "VAE of Wan 2.1",
        models.WAN_VAE,
        models.small_wan_vae(4, channels=4, num_res_blocks=1)
        | {"dim_mult": [1, 2, 2], "temperal_downsample": [False, True]},
        _PYTORCH,
    ),
    Row(
        "clip_text",
        "CLIP text encoder (of both pipelines)",
        _TEXT_H | {"num_hidden_layers": 23},
        _SMALL_TEXT,
        f"{_PYTORCH}; names with and without `text_model.`",
    ),
    Row(
        "umt5_text",
        "UMT5 text encoder (of Wan)",
        {"d_ff": 10240, "d_model": 4096, "num_heads": 64, "num_layers": 24, "vocab_size": 256384},
        models.small_umt5(32, heads=4, inner=48, layers=2),
        f"{_PYTORCH}; embeddings under either name, or both",
    ),
    Row(
        "clip",
        "CLIP (OpenCLIP ViT-H/14)",
        {
            "projection_dim": 1024,
            "text_config": _TEXT_H,
            "vision_config": _VISION_H,
        },
        {"projection_dim": 20, "text_config": _SMALL_TEXT, "vision_config": _SMALL_IMAGE},
        _PYTORCH,
    ),
    Row(
        "vit",
        "Frame classifier (ViT-B/16)",
        models.labels(1000),
        _SMALL_IMAGE | models.labels(7),
        _PYTORCH,
    ),
    Row(
        "video_mae",
        "Video classifier (VideoMAE-B)",
        models.labels(400) | {"qkv_bias": True},
        _SMALL_IMAGE | models.labels(7) | {"num_frames": 4},
        _PYTORCH,
    ),
    Row(
        "fmri_autoencoder",
        "fMRI autoencoder (fMRI-PTE)",
        _FMRI,
        _SMALL_FMRI | {"decoder_depth": 2, "latent": 48},
        _OURS,
    ),
    Row(
        "fmri_encoder",
        "fMRI encoder with GLFA",
        _FMRI | {"window": 5, "tokens": 77, "clip_dim": 1024},
        _SMALL_FMRI
        | {"window": 3, "tokens": 16, "clip_dim": 24, "hidden_tokens": 20, "kernel_size": 5}
        | {"conditioning_heads": 4},
        f"{_OURS}; decoder kept or dropped, either head",
    ),
    Row(
        "lea",
        "LEA, the baseline by regression",
        _FMRI | {"window": 5, "tokens": 77, "token_dim": 1024, "clip_dim": 1024},
        _SMALL_FMRI | {"window": 3, "tokens": 16, "token_dim": 20, "clip_dim": 24},
        "run folders",
    ),
)


def published_size(row: Row) -> tuple[int, int]:
    """Tensors and parameters at full size."""
    leaves = jax.tree.leaves(models.shapes_of(row.kind, row.published))
    return len(leaves), sum(leaf.size for leaf in leaves)


def write_small(row: Row, folder: Path) -> None:
    """A small model of random weights, made and stored by PyTorch's class where there is one."""
    if pretrained.KINDS[row.kind].torch_class is None:
        shapes = models.shapes_of(row.kind, row.small)
        params = models.random_params(shapes, std=0.1, scale=1.0)
        pretrained.save(row.kind, folder, params, config=row.small)
        return
    torch.manual_seed(0)
    model = models.torch_model(row.kind, row.small)
    with torch.no_grad():
        # Biases, norms and what starts at zero, too.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def measure(row: Row) -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        write_small(row, Path(folder))
        (comparison,) = verify(row.kind, folder, gradients=True).comparisons
    return comparison


def table(rows: tuple[Row, ...] = ROWS) -> str:
    """The page's content; raises SystemExit when a model is beyond the bound."""
    head = ("model", "kind", "tensors", "parameters", "forward", "gradient", "read from")
    lines = []
    failed = []
    for row in rows:
        (tensors, parameters), found = published_size(row), measure(row)
        failed += [] if found.passed else [row.kind]
        sizes = f"`{row.kind}`", f"{tensors:,}", f"{parameters:,}"
        errors = f"{found.forward_error:.1e}", f"{found.gradient_error:.1e}"
        lines.append((row.model, *sizes, *errors, row.layouts))
    if failed:
        raise SystemExit(f"beyond {TOLERANCE}: {', '.join(failed)}")
    return markdown(head, lines)


_PAGE = """# Parity with PyTorch

Written by `python -m benchmarks.parity_table`, with {versions}.

{table}

**tensors, parameters**: of the published model; every one is mapped, and import and export reject
a source in which one is missing, unused or of another shape. **forward, gradient**: the largest
difference between PyTorch and JAX in float32, relative to the largest magnitude of an output and
of all gradients, on small models of random weights (CPU, seed 0; the bound is {bound}).
For the fMRI models PyTorch computes `glfa_jax/convert/verify_fmri.py`, written from their
definitions; vectors of the official implementation are in `tests/reference`.

{full_size}

## Commands

    python -m glfa_jax.convert inspect --source PLACE
    python -m glfa_jax.convert import  --kind KIND --source PLACE --target FOLDER
    python -m glfa_jax.convert export  --kind KIND --source FOLDER --target FOLDER_OR_PTH
    python -m glfa_jax.convert verify  --kind KIND --source PLACE [--gradients]
    python -m glfa_jax.convert lora    --source PLACE --base FOLDER --target FOLDER

KIND is one of the above or `text_to_video`, a whole pipeline, as ModelScope's or as Wan's, of which
the text encoder may be missing. PLACE is a folder, an official `.pth`, or `hub:owner/name`. What
`import` makes keeps PyTorch's names and layouts, so PyTorch loads it too; outdated names come out
as current ones, and position indices are left out.

Export inverts import bit for bit with `--dtype stored` (the default); `float32` and `bfloat16`
round to nearest. Official checkpoints tell their architecture by their shapes; the number of heads
is taken as 16 at the published width of 1024 and asked for (`--set num_heads=N`) otherwise.

## LoRA

    python -m glfa_jax.convert import --kind KIND --source PLACE --target FOLDER --lora PLACE

merges the update into a `unet3d` or a `wan`, alone or in a `text_to_video`, `--lora-strength X`
times (default 1): computed in float32, then rounded to `--dtype`. `lora` keeps it apart and writes
it in float32 as PEFT (default) or diffusers does (`--layout peft`, `--layout diffusers`); `--base`
is the folder of the model that it adapts. `verify` with the first two options compares what was
merged with PyTorch running the update beside the layers.

Read are rank decompositions of linear layers, 1x1 and 3x3 convolutions, convolutions over time and
of patches, from safetensors, `.bin` or `.pt`, under these names (of the first of each pair):

- diffusers, `unet.MODULE.lora_A.weight`, `transformer.` for `wan`, the scale from the file's
  metadata;
- PEFT around the model, `base_model.model.MODULE.lora_A.weight`, or around a pipeline,
  `base_model.model.unet.MODULE.lora_A.weight`, the scale from adapter_config.json;
- older diffusers, `unet.MODULE.lora.down.weight`, and its attention processors,
  `unet.ATTENTION.processor.to_q_lora.down.weight`, the scale from `.alpha` tensors;
- kohya's scripts, `lora_unet_MODULE.lora_down.weight` with `_` for every dot of the module's name,
  the scale from `.alpha` tensors;
- for `wan`, the names of its authors, `diffusion_model.blocks.0.self_attn.q.lora_A.weight`, and
  musubi-tuner's, `lora_unet_blocks_0_self_attn_q.lora_down.weight`.

Where nothing tells the scale, it is 1. Rejected by name: DoRA, LoHa, LoKr, core tensors of LoCon,
biases, embeddings, whole differences, updates of a text encoder, and options of PEFT that change
the weights themselves (`pissa` and the like). `tests/parity/test_lora.py` compares a merged update
with PyTorch's update beside the layer.

## Memory

Import and export hold mapped pages of the source tensor at hand and one piece of at most 16 MB of
its cast copy; loading holds the parameters and one source tensor. Counted is all resident memory
above that of the program itself, mapped pages of files included, pages of the operating
system's cache of files not. `tests/convert/test_stream.py` measures it. Merging a LoRA also holds
the LoRA and a few float32 copies of one tensor. Reading `.pth` and `.bin` needs no PyTorch and runs
no code of the file.
"""


def full_size(result: Path = unet3d_parity.RESULT) -> str:
    """What the parity run at full size left."""
    run = json.loads(result.read_text())
    names = ("torch", "diffusers", "jax")
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in names)
    return (
        f"The UNet3D was also compared at full size, {run['parameters']:,} parameters, by "
        f"`python -m benchmarks.unet3d_parity`: the output differs by {run['error_output']:.1e}, "
        f"gradients of inputs and of one layer of each kind by at most "
        f"{max(run['error_gradients'].values()):.1e} of their largest magnitude ({versions}; "
        f"{run['device']}; {run['peak_rss_gib']} GiB of memory)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "parity.md")
    out = parser.parse_args().out
    modules = (torch, diffusers, transformers, jax)
    versions = ", ".join(f"{m.__name__} {m.__version__.partition('+')[0]}" for m in modules)
    filled = {"table": table(), "full_size": full_size(), "versions": versions}
    out.write_text(_PAGE.format(**filled, bound=json.dumps(TOLERANCE)))
    print(out)


if __name__ == "__main__":
    main()
