"""The fMRI models in PyTorch, from their definitions (SPEC §2) and a checkpoint's tensors.

There to compare with: plain functions of tensors by name, without dropout. Imported by `verify`
alone, when it is called.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from glfa_jax.errors import InputError

Tensors = dict[str, torch.Tensor]


class _Model:
    """Calls `forward(tensors, module, x)`; the tensors are leaves that may get gradients."""

    def __init__(self, tensors: Tensors, module: Any, forward: Any):
        self.tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        self.module, self.forward = module, forward

    def __call__(self, x: torch.Tensor) -> Tensors:
        return self.forward(self.tensors, self.module, x)


def fmri_autoencoder(tensors: Tensors, module: Any) -> _Model:
    return _Model(tensors, module, _autoencode)


def fmri_encoder(tensors: Tensors, module: Any) -> _Model:
    if module.subjects:
        raise InputError("an encoder with an alignment layer for every subject is ours alone")
    return _Model(tensors, module, _encode)


def lea(tensors: Tensors, module: Any) -> _Model:
    return _Model(tensors, module, _regress)


def _below(p: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): p[name] for name in p if name.startswith(prefix)}


def _linear(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def _norm(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)


def _attention(p: Tensors, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(-3, -2)
        for part in _linear(p, f"{name}.qkv", x).chunk(3, -1)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    return _linear(p, f"{name}.proj", mixed.transpose(-3, -2).flatten(-2))


def _mlp(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return _linear(p, f"{name}.fc2", F.gelu(_linear(p, f"{name}.fc1", x)))


def _blocks(p: Tensors, name: str, x: torch.Tensor, depth: int, heads: int) -> torch.Tensor:
    for i in range(depth):
        inner = _below(p, f"{name}.{i}.")
        x = x + _attention(inner, "attn", _norm(inner, "norm1", x), heads)
        x = x + _mlp(inner, "mlp", _norm(inner, "norm2", x))
    return x


def _features(p: Tensors, module: Any, x: torch.Tensor) -> torch.Tensor:
    """Maps (b, h, w) to tokens (b, n, d), [CLS] first."""
    kernel, bias = p["patch_embed.proj.weight"], p["patch_embed.proj.bias"]
    patches = F.conv2d(x[:, None], kernel, bias, stride=module.patch_size)
    tokens = patches.flatten(2).transpose(1, 2)
    cls = p["cls_token"].expand(len(x), -1, -1)
    tokens = torch.cat([cls, tokens], 1) + p["pos_embed"]
    return _norm(p, "norm", _blocks(p, "blocks", tokens, module.depth, module.num_heads))


def _fold(module: Any, patches: torch.Tensor) -> torch.Tensor:
    """Patches (b, n, pixels) to maps (b, h, w)."""
    size, side = (module.height, module.width), module.patch_size
    return F.fold(patches.transpose(1, 2), size, side, stride=side)[:, 0]


def _autoencode(p: Tensors, module: Any, x: torch.Tensor) -> Tensors:
    features = _features(p, module, x)
    latent = _linear(p, "pred", features[:, :1])
    masks = p["mask_token"].expand(len(x), features.shape[1] - 1, -1)
    tokens = torch.cat([_linear(p, "decoder_embed", latent), masks], 1) + p["decoder_pos_embed"]
    tokens = _blocks(p, "decoder_blocks", tokens, module.decoder_depth, module.num_heads)
    tokens = _linear(p, "decoder_pred", _norm(p, "decoder_norm", tokens))[:, 1:]
    image = _fold(module, tokens)
    return {"features": features, "latent": latent, "tokens": tokens, "image": image}


def _align(p: Tensors, module: Any, x: torch.Tensor) -> torch.Tensor:
    """Global and local part on maps (b, h, w)."""
    if module.global_part:
        side = module.patch_size
        patches = F.unfold(x[:, None], side, stride=side).transpose(1, 2)
        mixing = p["global_align_weight"][0, 0]
        x = _fold(module, patches + mixing @ patches) * (x != 0)
    if module.local_part:
        theta = p["weight"][0, 0, 0]
        taps = theta.shape[-1]
        side = math.isqrt(taps)
        centre = F.one_hot(torch.tensor(taps // 2), taps)
        weights = (centre + theta).abs()
        weights = weights / weights.sum(-1, keepdim=True)
        around = F.unfold(x[:, None], side, padding=side // 2).transpose(1, 2)
        y = (around.unflatten(1, x.shape[1:]) * weights).sum(-1)
        x = y * (x != 0)
    return x


def _condition(p: Tensors, module: Any, x: torch.Tensor) -> torch.Tensor:
    """Features (b, w, n, d) to what stands where text embeddings stand."""
    block = _below(p, "attn.")
    x = x + _attention(block, "attn", _norm(block, "norm1", x), module.conditioning_heads)
    over_time = _norm(block, "norm_temp", x).transpose(1, 2)
    over_time = _attention(block, "attn_temp", over_time, module.conditioning_heads)
    x = x + over_time.transpose(1, 2)
    x = x + _mlp(block, "mlp", _norm(block, "norm2", x))
    mapper = _below(p, "cond_state_transform.")
    x = x.flatten(1, 2).transpose(1, 2)
    x = _linear(mapper, "channel_mapper.1", _linear(mapper, "channel_mapper.0", x))
    projected = _linear(mapper, "projection", x.transpose(1, 2))
    return _linear(mapper, "fc", F.gelu(projected)) + projected


def _encode(p: Tensors, module: Any, fmri: torch.Tensor) -> Tensors:
    maps = fmri.flatten(0, 1)
    aligned = _align(_below(p, "func_align_layer."), module, maps)
    features = _features(_below(p, "fmri_encoder.transformer."), module, aligned)
    features = features.unflatten(0, fmri.shape[:2])
    condition = _condition(_below(p, "fmri_encoder_proj."), module, features)
    head = _below(p, "fmri2clip.")
    if module.head == "conv":
        x = condition
        for i in (0, 2, 4):
            x = F.conv1d(x, head[f"channel_mapper.{i}.weight"])
        embedding = _linear(head, "dim_mapper", x[:, 0])
    else:
        embedding = _linear(head, "1", features[:, :, 0].flatten(1))
    return {
        "aligned": aligned.unflatten(0, fmri.shape[:2]),
        "features": features,
        "condition": condition,
        "embedding": F.normalize(embedding, dim=-1),
    }


def _regress(p: Tensors, module: Any, fmri: torch.Tensor) -> Tensors:
    features = _features(_below(p, "encoder."), module, fmri.flatten(0, 1))
    features = features.unflatten(0, fmri.shape[:2])
    seen = features[:, :, 0].flatten(1)
    condition, image = (
        _linear(p, f"{name}.linear", seen - p[f"{name}.centre"])
        for name in ("to_tokens", "to_image")
    )
    return {
        "aligned": fmri,
        "features": features,
        "condition": condition.unflatten(1, (module.tokens, module.token_dim)),
        "embedding": F.normalize(image, dim=-1),
    }
