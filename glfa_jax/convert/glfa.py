"""Names of the official GLFA and fMRI-PTE checkpoints, as in SPEC §2 and `tests/reference`.

LEA has no official checkpoint for video: its names are ours.
"""

from glfa_jax.convert.mapping import POINTWISE1D, Table, Transform

# The official tensors carry singleton axes for channels that this layer does not have, and the taps
# last: (h, w, taps) where the layer has (taps, h, w).
_LOCAL = Transform(
    "LOCAL",
    lambda x: x[0, 0, 0].transpose(2, 0, 1),
    lambda x: x.transpose(1, 2, 0)[None, None, None],
)
_GLOBAL = Transform("GLOBAL", lambda x: x[0, 0], lambda x: x[None, None])

AUTOENCODER = Table()
LEA = Table()
ALIGNMENT = Table(
    transforms=(
        (r"global_align_weight$", _GLOBAL),
        (r"^(func_align_layers?\.(\d+\.)?)?weight$", _LOCAL),
    )
)
CONDITIONING = Table()
# In the head the token convolutions are stored as such; in the token mapper they are linear maps.
CONV_HEAD = Table(transforms=((r"channel_mapper\.\d+\.weight$", POINTWISE1D),))
LINEAR_HEAD = Table()
ENCODER = Table(
    rename=((r"^func_align_layers_(\d+)", r"func_align_layers.\1"),),  # one a subject: ours alone
    transforms=(*ALIGNMENT.transforms, (r"^fmri2clip\.channel", POINTWISE1D)),
    # Checkpoints carry the autoencoder's decoder along, which the encoder does not use.
    ignore=(r"^fmri_encoder\.transformer\.(mask_token$|decoder_|pred\.)",),
)
