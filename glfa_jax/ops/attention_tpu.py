"""Attention by the flash kernel for TPUs that ships with JAX (arXiv 2205.14135): holds no scores.

The kernel wants whole tiles: sequences are filled up, and a segment of their own keeps the added
keys from being seen.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.flash_attention import (
    BlockSizes,
    SegmentIds,
    flash_attention,
)

_LANES = 128  # a tile's side
_BLOCKS = (512, 256, 128)
_WASTE = 1 / 8  # share of a sequence that larger, faster blocks may add
WIDEST = 512  # of a head


def takes(query: Array) -> bool:
    """Whether the kernel computes heads of this width and dtype, at the precision in use: Mosaic
    compiles no product of bfloat16 at a precision that is asked for."""
    asked: Any = jax.config
    fits = query.dtype in (jnp.bfloat16, jnp.float32) and query.shape[-1] <= WIDEST
    return fits and asked.jax_default_matmul_precision in (None, "default")


def attend(query: Array, key: Array, value: Array) -> Array:
    """softmax(query · key / sqrt(d)) · value of (*b, n, h, d), of any lengths, without mask."""
    width, seen = query.shape[-1], key.shape[-3]
    block_q, block_k = _block(query.shape[-3]), _block(seen)
    q, k, v = _tiles(query, block_q), _tiles(key, block_k), _tiles(value, block_k)
    segments = None
    if k.shape[2] > seen:
        added = jnp.arange(k.shape[2]) >= seen
        segments = SegmentIds(
            q=jnp.zeros((q.shape[0], q.shape[2]), jnp.int32),
            kv=jnp.broadcast_to(added.astype(jnp.int32), (k.shape[0], k.shape[2])),
        )
    y = flash_attention(
        q,
        k,
        v,
        segment_ids=segments,
        sm_scale=width**-0.5,
        block_sizes=BlockSizes(
            block_b=1,
            block_q=block_q,
            block_k_major=block_k,
            block_k=block_k,
            block_q_major_dkv=block_q,
            block_q_dkv=block_q,
            block_k_major_dkv=block_k,
            block_k_dkv=block_k,
            block_q_dq=block_q,
            block_k_major_dq=block_k,
            block_k_dq=block_k,
        ),
    )
    y = y[:, :, : query.shape[-3], :width]
    return jnp.swapaxes(y, 1, 2).reshape(query.shape)


def _block(length: int) -> int:
    """The largest block that fills a sequence up by little, else the smallest."""
    fitting = (block for block in _BLOCKS if -length % block <= _WASTE * length)
    return next(fitting, _BLOCKS[-1])


def _tiles(x: Array, block: int) -> Array:
    """(*b, n, h, d) to (b, h, n, d), of whole blocks, wide heads of whole tiles."""
    x = jnp.swapaxes(x.reshape(-1, *x.shape[-3:]), 1, 2)
    wider = -x.shape[3] % _LANES if x.shape[3] > _LANES else 0
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % block), (0, wider)))
