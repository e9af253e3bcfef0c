"""The models that benchmarks and tests run: published and small configurations, random weights."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from glfa_jax.convert import pretrained
from glfa_jax.files import read_object

# ModelScope text-to-video 1.7b, as it is published.
PUBLISHED = Path(__file__).parents[1] / "foundation" / "modelscope" / "text-to-video"
SCHEDULE = PUBLISHED / "scheduler" / "scheduler_config.json"
UNET, VAE = (read_object(PUBLISHED / part / "config.json") for part in ("unet", "vae"))

# Wan 2.1 T2V 1.3B likewise.
_WAN = Path(__file__).parents[1] / "foundation" / "wan" / "text-to-video"
WAN_SCHEDULE = _WAN / "scheduler" / "scheduler_config.json"
WAN, WAN_VAE = (read_object(_WAN / part / "config.json") for part in ("transformer", "vae"))


def small_unet(*widths: int, groups: int, head: int, condition: int, **more: Any) -> dict[str, Any]:
    """A UNet3D of these widths, with attention everywhere but at its lowest resolution."""
    lower = len(widths) - 1
    kinds = {
        "down_block_types": ["CrossAttnDownBlock3D"] * lower + ["DownBlock3D"],
        "up_block_types": ["UpBlock3D"] + ["CrossAttnUpBlock3D"] * lower,
    }
    sizes = {"block_out_channels": list(widths), "layers_per_block": 1, "norm_num_groups": groups}
    sizes |= {"cross_attention_dim": condition, "attention_head_dim": head}
    return {"_class_name": "UNet3DConditionModel", **kinds, **sizes, **more}


def small_wan(
    *, heads: int, head: int, inner: int, layers: int, condition: int, channels: int = 16
) -> dict[str, Any]:
    """A transformer of Wan; the published ones are for 16 latent channels."""
    sizes = {"num_attention_heads": heads, "attention_head_dim": head, "ffn_dim": inner}
    sizes |= {"num_layers": layers, "text_dim": condition, "freq_dim": 16}
    sizes |= {"in_channels": channels, "out_channels": channels}
    return {"_class_name": "WanTransformer3DModel", **sizes}


def small_umt5(width: int, *, heads: int, inner: int, layers: int) -> dict[str, Any]:
    """UMT5's encoder, with so few buckets that a short caption fills them."""
    sizes = {"d_model": width, "d_kv": width // heads, "d_ff": inner, "num_heads": heads}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    return {**sizes, "num_layers": layers, "vocab_size": 20, **buckets}


def small_vae(*widths: int, groups: int, **more: Any) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 1,
        "norm_num_groups": groups,
        **more,
    }


def small_wan_vae(width: int, *, channels: int, **more: Any) -> dict[str, Any]:
    """Wan's autoencoder as published but for its widths, of latents with so many channels."""
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": width,
        "z_dim": channels,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_scales": [],
        "temperal_downsample": [False, True, True],
        "dropout": 0.0,
        "latents_mean": [0.1 * (i - 1) for i in range(channels)],
        "latents_std": [1 + 0.5 * i for i in range(channels)],
        **more,
    }


def small_transformer(width: int, *, inner: int, heads: int, layers: int) -> dict[str, Any]:
    """What CLIP's towers, ViT and VideoMAE share."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def labels(count: int) -> dict[str, dict[str, str]]:
    return {"id2label": {str(i): str(i) for i in range(count)}}


_TOWER = small_transformer(8, inner=12, heads=2, layers=1)
_TEXT = {**_TOWER, "vocab_size": 20, "max_position_embeddings": 6, "eos_token_id": 19}
_IMAGE = {**_TOWER, "image_size": 8, "patch_size": 4, "num_channels": 3}
_MAPS = {"height": 16, "width": 24, "patch_size": 8, "dim": 8, "num_heads": 2}
_WINDOW = {**_MAPS, "window": 2, "tokens": 5, "clip_dim": 7, "depth": 1}
# One of every kind that `pretrained` knows, as small as they go.
TINY: dict[str, dict[str, Any]] = {
    "unet3d": small_unet(8, 16, groups=4, head=4, condition=12),
    "wan": small_wan(heads=2, head=8, inner=20, layers=2, condition=12),
    "vae": small_vae(8, 16, groups=4),
    "wan_vae": small_wan_vae(2, channels=2, num_res_blocks=1),
    "clip": {
        "model_type": "clip",
        "projection_dim": 6,
        "text_config": _TEXT,
        "vision_config": _IMAGE,
    },
    "clip_text": {"model_type": "clip_text_model", **_TEXT},
    "umt5_text": {"model_type": "umt5", **small_umt5(8, heads=2, inner=12, layers=2)},
    "vit": {"model_type": "vit", **_IMAGE, **labels(3)},
    "video_mae": {
        "model_type": "videomae",
        **_IMAGE,
        **labels(3),
        "num_frames": 4,
        "tubelet_size": 2,
    },
    "fmri_autoencoder": {**_MAPS, "depth": 2, "decoder_depth": 1, "latent": 6},
    "fmri_encoder": {**_WINDOW, "hidden_tokens": 4, "conditioning_heads": 2, "kernel_size": 3},
    "lea": {**_WINDOW, "token_dim": 9},
}


def shapes_of(kind: str, config: dict[str, Any]) -> dict:
    """Of the parameters, nothing being allocated."""
    return pretrained.parameter_shapes(kind, pretrained.build(kind, config))


def random_params(shapes: dict, *, std: float = 1.0, scale: float = 0.0) -> dict:
    """Normal parameters of these shapes; `scale` is added to those that scale after a norm."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        around = scale if path[-1].key == "scale" else 0.0
        return (std * rng.standard_normal(leaf.shape) + around).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def torch_model(kind: str, config: dict[str, Any]) -> Any:
    """PyTorch's model of a kind as its library initialises it, ready to be evaluated."""
    from glfa_jax.convert.verify import torch_class

    made, known = torch_class(kind), pretrained.KINDS[kind].identity
    options = {key: value for key, value in config.items() if key not in known}
    if hasattr(made, "config_class"):  # transformers makes an object of the options
        return made(made.config_class(**options)).eval()
    return made(**options).eval()


def randomise(model: Any, *, seed: Any, spread: float = 0.2, vectors: bool = True) -> Any:
    """Draws the parameters of a torch model anew, in place; gives the model, to be evaluated.

    Matrices and kernels keep the scale of what they are given: the library's own initialisation
    starts temporal convolutions at zero and makes the caption count for next to nothing. Biases
    and norms, which it starts at telling values, differ from these by `spread`, where `vectors`.
    seed: a number, or a generator of torch that goes on.
    """
    import torch

    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            elif vectors:
                scales = "norm" in name and name.endswith("weight")
                parameter.normal_(mean=float(scales), std=spread, generator=generator)
    return model.eval()


def random_torch_model(kind: str, config: dict[str, Any], *, seed: int, spread: float = 0.2) -> Any:
    """A model of diffusers with random weights, as `randomise` draws them.

    The library's own initialisation, which takes long at full size, is left out.
    """
    import torch

    with torch.device("meta"):
        model = torch_model(kind, config)
    return randomise(model.to_empty(device="cpu"), seed=seed, spread=spread)
