"""Wan 2.1 text-to-video (1.3 and 14 billion parameters), in diffusers' folder layout.

transformer/   WanTransformer3DModel: attention over all patches of a clip
vae/           AutoencoderKLWan: causal in time, factor 4 there and 8 in space
text_encoder/  UMT5EncoderModel
scheduler/     the noise schedule (flow matching)
tokenizer/
"""

from glfa_jax.generators.wan.generator import WanGenerator

__all__ = ["WanGenerator"]
