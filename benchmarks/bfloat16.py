"""What bfloat16 costs in accuracy: the generator's prediction, guided and not, and decoded video.

    python -m benchmarks.bfloat16 foundation/simulated

Runs the denoiser and the VAE of a foundation in float32 and in bfloat16 on the same random latents,
with captions' tokens as conditions, and prints root mean square differences relative to the root
mean square of what float32 gives; of video, in levels of 256.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.captions import Tokenizer
from glfa_jax.diffusion.guidance import guided
from glfa_jax.generators.unet3d import UNet3DGenerator

CLIPS, FRAMES, SIDE, STEPS, SCALE = 8, 6, 64, 25, 9.0
CAPTIONS = ["a red ball moves to the left", "a small blue box turns", "a green ring grows"]


def root_mean_square(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def main() -> None:
    parser = argparse.ArgumentParser(description="What bfloat16 costs in accuracy.")
    parser.add_argument("foundation", type=Path)
    folder = parser.parse_args().foundation / "text-to-video"
    generator = UNet3DGenerator.open(folder)
    denoiser, codec = in_memory((generator.load(), generator.load_codec()))
    text = in_memory(generator.load_text_encoder())
    tokens = Tokenizer.load(folder / "tokenizer")([*CAPTIONS, ""])
    hidden: Any = text.module.apply(text.variables, tokens)
    condition = jnp.resize(hidden.hidden[:-1], (CLIPS, *hidden.hidden.shape[1:]))
    shape = generator.latent_shape(FRAMES, SIDE, SIDE)
    latents = jax.random.normal(jax.random.key(0), (CLIPS, *shape))

    def computed(dtype: Any, final: Any = None) -> dict[str, Any]:
        """final: clean latents to decode; those that are sampled here if left out."""
        own = generator.computing(dtype=dtype)
        plain = partial(own.denoise, denoiser)
        pushed = guided(plain, condition=condition, negative=hidden.hidden[-1:], scale=SCALE)
        found: dict[str, Any] = {}
        for t in (100, 500, 900):
            found[f"prediction, step {t}"] = jax.jit(plain)(latents, jnp.int32(t), condition)
            found[f"guided prediction, step {t}"] = jax.jit(pushed)(latents, jnp.int32(t))
        sample = partial(own.sample, pushed, steps=STEPS, method="dpm++")
        found["sampled latents"] = jax.jit(sample)(latents)
        decode = jax.jit(partial(own.decode, codec))
        found["video of the same latents"] = decode(
            found["sampled latents"] if final is None else final
        )
        found["video, sampled and decoded"] = decode(found["sampled latents"])
        return found

    wide = computed(jnp.float32)
    half = computed(jnp.bfloat16, wide["sampled latents"])
    print(f"{folder}: {CLIPS} clips of {FRAMES} frames, guidance {SCALE:g}, {STEPS} steps")
    for name, x in wide.items():
        off = root_mean_square(half[name] - x)
        if name.startswith("video"):
            print(f"{name}: {127.5 * off:.3f} of 256 levels")
        else:
            print(f"{name}: {off / root_mean_square(x):.2e}")


if __name__ == "__main__":
    main()
