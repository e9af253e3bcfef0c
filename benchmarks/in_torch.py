"""The generators as diffusers has them on torch, with LoRA as PEFT computes it."""

import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.models import resnet
from diffusers.models.transformers import transformer_2d, transformer_temporal, transformer_wan
from torch.utils.checkpoint import checkpoint

from glfa_jax.convert.verify import torch_class
from glfa_jax.files import read_object


class InDiffusers:
    """A pipeline's folder; videos and latents have the layout of torch, (b, c, f, h, w).

    layers: what is computed anew in the backward pass, as our `remat` does. kept: what diffusers
    keeps in float32, by parts of names.
    """

    part: ClassVar[str]
    kinds: ClassVar[tuple[str, str]]
    solver: ClassVar[Any]
    layers: ClassVar[tuple[type, ...]]
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path):
        # Not train(): UNet3D would drop out in its temporal convolutions, and ours does not.
        self.denoiser, self.codec = (
            torch_class(kind).from_pretrained(folder / part, low_cpu_mem_usage=False).eval()
            for part, kind in zip((self.part, "vae"), self.kinds, strict=True)
        )
        settings = read_object(folder / "scheduler" / "scheduler_config.json")
        self.scheduler = self.solver.from_config(settings)
        self.called, self.decoded = self.denoiser, self.codec.decode

    def cast(self, dtype: torch.dtype, *, frozen_alone: bool = False) -> None:
        """Parameters of the denoiser to `dtype`, but for those that are kept."""
        for name, parameter in self.denoiser.named_parameters():
            if any(part in name for part in self.kept) or (
                frozen_alone and parameter.requires_grad
            ):
                continue
            parameter.data = parameter.data.to(dtype)

    def compile(self) -> None:
        self.called, self.decoded = torch.compile(self.called), torch.compile(self.decoded)

    def recompute(self) -> None:
        """diffusers has no gradient checkpointing for UNet3D: torch's own, for both alike."""
        for module in self.denoiser.modules():
            if isinstance(module, self.layers):
                module.forward = partial(
                    checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False
                )

    def noisy(self, clean: Any, *, noise: Any, t: Any) -> Any:
        raise NotImplementedError

    def target(self, clean: Any, *, noise: Any) -> Any:
        raise NotImplementedError

    def predict(self, latents: Any, t: Any, condition: Any) -> Any:
        return self.called(latents, t, encoder_hidden_states=condition).sample

    def sample(
        self, noise: Any, condition: Any, negative: Any, *, steps: int, guidance: float
    ) -> Any:
        """Latents; two conditions a call."""
        both = torch.cat([negative.expand_as(condition), condition])
        self.scheduler.set_timesteps(steps, device=noise.device)
        latents = noise
        for t in self.scheduler.timesteps:
            doubled = self.scheduler.scale_model_input(torch.cat([latents, latents]), t)
            away, towards = self.predict(doubled, t.expand(len(doubled)), both).chunk(2)
            prediction = away + guidance * (towards - away)
            latents = self.scheduler.step(prediction, t, latents).prev_sample
        return latents

    def decode(self, latents: Any) -> Any:
        """Video in [-1, 1], (b, f, h, w, c), in float32."""
        raise NotImplementedError


class UNet3D(InDiffusers):
    part, kinds = "unet", ("unet3d", "vae")
    solver = diffusers.DPMSolverMultistepScheduler
    layers = (
        resnet.ResnetBlock2D,
        resnet.TemporalConvLayer,
        transformer_2d.Transformer2DModel,
        transformer_temporal.TransformerTemporalModel,
    )

    def noisy(self, clean: Any, *, noise: Any, t: Any) -> Any:
        # The solver's own adds noise for the steps that it walks through alone.
        scheduler = diffusers.DDIMScheduler.from_config(self.scheduler.config)
        return scheduler.add_noise(clean, noise, t)

    def target(self, clean: Any, *, noise: Any) -> Any:
        return noise

    def decode(self, latents: Any) -> Any:
        frames = latents.transpose(1, 2).flatten(0, 1) / self.codec.config.scaling_factor
        video = self.decoded(frames).sample.float().clamp(-1, 1)
        return video.permute(0, 2, 3, 1).unflatten(0, (len(latents), -1))


class Wan(InDiffusers):
    part, kinds = "transformer", ("wan", "wan_vae")
    solver = diffusers.UniPCMultistepScheduler
    layers = (transformer_wan.WanTransformerBlock,)
    kept = tuple(diffusers.WanTransformer3DModel._keep_in_fp32_modules)

    def _share(self, t: Any) -> Any:
        return t[:, None, None, None, None] / self.scheduler.config.num_train_timesteps

    def noisy(self, clean: Any, *, noise: Any, t: Any) -> Any:
        share = self._share(t)
        return (1 - share) * clean + share * noise

    def target(self, clean: Any, *, noise: Any) -> Any:
        return noise - clean

    def decode(self, latents: Any) -> Any:
        mean, std = (
            latents.new_tensor(getattr(self.codec.config, f"latents_{name}"))[:, None, None, None]
            for name in ("mean", "std")
        )
        video = self.decoded(latents * std + mean).sample.float().clamp(-1, 1)
        return video.permute(0, 2, 3, 4, 1)


PIPELINES: dict[str, type[InDiffusers]] = {"unet3d": UNet3D, "wan": Wan}


def train_only(model: torch.nn.Module, pattern: str) -> dict[str, torch.nn.Parameter]:
    """The parameters that a pattern is found in, by name; the others get no gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.search(pattern, name) is not None)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_beside(
    model: torch.nn.Module, update: dict[str, torch.Tensor], *, scale: float
) -> dict[str, torch.nn.Parameter]:
    """Low-rank updates beside linear layers, by PEFT's names, as PEFT computes them."""
    model.requires_grad_(False)
    trained = {name: torch.nn.Parameter(tensor) for name, tensor in update.items()}

    def beside(down: Any, up: Any, _: Any, given: tuple, output: Any) -> Any:
        narrow = torch.nn.functional.linear(given[0].to(down.dtype), down)
        return output + scale * torch.nn.functional.linear(narrow, up)

    for layer in dict.fromkeys(name.rpartition(".lora_")[0] for name in update):
        parts = (trained[f"{layer}.lora_{part}.weight"] for part in "AB")
        model.get_submodule(layer).register_forward_hook(partial(beside, *parts))
    return trained
