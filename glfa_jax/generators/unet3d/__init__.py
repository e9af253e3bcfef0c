"""ModelScope text-to-video 1.7b and zeroscope_v2_576w, in diffusers' folder layout.

unet/          UNet3DConditionModel: 2-D U-Net with convolutions and attention over time
vae/           AutoencoderKL: frame by frame, factor 8
text_encoder/  CLIPTextModel
scheduler/     the noise schedule (DDPM)
tokenizer/
"""

from glfa_jax.generators.unet3d.generator import UNet3DGenerator

__all__ = ["UNet3DGenerator"]
