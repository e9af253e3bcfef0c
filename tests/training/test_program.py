"""What is read from the text of a compiled program."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from glfa_jax.training import speed
from glfa_jax.training.program import Program


def looped(passes: int) -> speed.Costs:
    def run(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    shape = jax.ShapeDtypeStruct
    lowered = jax.jit(run).lower(shape((64, 64), "f4"), shape((passes, 64, 64), "f4"))
    return speed.costs(lowered.compile())


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    product = 2 * 64**3
    assert looped(7).operations == pytest.approx(7 * product, rel=0.05)
    assert looped(21).operations == pytest.approx(3 * looped(7).operations, rel=0.01)
    assert 2 < looped(21).bytes_accessed / looped(7).bytes_accessed < 4


def test_a_program_without_loops_is_what_xla_says():
    compiled = jax.jit(lambda x: jnp.sin(x @ x)).lower(jax.ShapeDtypeStruct((32, 32), "f4"))
    compiled = compiled.compile()
    found, counted = speed.costs(compiled), compiled.cost_analysis()
    assert found == (counted["flops"], counted["bytes accessed"], {})


# As TPU compilers write it: the number of passes stands in the condition alone, tuples hold
# comments, what is begun and done later lists what it takes.
TPU = """HloModule jit_step

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused (a: bf16[8,4], w: bf16[4,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[4,4]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %c = bf16[8,4]{1,0:T(8,128)(2,1)} convolution(%a, %w), dim_labels=bf_io->bf
}

%body (given: (s32[], bf16[8,4], bf16[4,4])) -> (s32[], bf16[8,4], bf16[4,4]) {
  %given = (s32[]{:T(128)}, bf16[8,4]{1,0}, bf16[4,4]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%given), index=0
  %a = bf16[8,4]{1,0} get-tuple-element(%given), index=1
  %part = bf16[1,4]{1,0} get-tuple-element(%given), index=2
  %begun = (bf16[1,4]{1,0}, bf16[4,4]{1,0}) all-gather-start(%part), dimensions={0}
  %w = bf16[4,4]{1,0} all-gather-done(%begun)
  %y = bf16[8,4]{1,0} fusion(%a, %w), kind=kOutput, calls=%fused
  ROOT %out = (s32[]{:T(128)}, bf16[8,4]{1,0}, bf16[4,4]{1,0}) tuple(%i, %y, %w)
}

%condition (given: (s32[], bf16[8,4], bf16[4,4])) -> pred[] {
  %given = (s32[]{:T(128)}, bf16[8,4]{1,0}, bf16[4,4]{1,0}) parameter(0)
  %bound = s32[]{:T(128)} constant(6)
  %i = s32[]{:T(128)} get-tuple-element(%given), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

ENTRY %main (a: bf16[8,4], w: bf16[4,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  %w = bf16[4,4]{1,0} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, bf16[8,4]{1,0}, bf16[4,4]{1,0}) tuple(%zero, %a, %w)
  %loop = (s32[]{:T(128)}, bf16[8,4]{1,0}) while(%start), condition=%condition, body=%body
  %y = bf16[8,4]{1,0} get-tuple-element(%loop), index=1
  %sums = (f32[5]{0}, f32[3]{0}, /*index=2*/f32[2]{0}) all-reduce(%p, %q, %r), to_apply=%add
  ROOT %last = bf16[8,4]{1,0} fusion(%y, %w), kind=kOutput, calls=%fused
}
"""


def test_exchanges_in_loops_and_in_tuples():
    assert Program(TPU).exchanges() == {
        "all-gather": {"count": 6, "bytes": 6 * 4 * 4 * 2},
        "all-reduce": {"count": 1, "bytes": (5 + 3 + 2) * 4},
    }


def test_products_in_fused_computations_count():
    operations, traffic = Program(TPU).repeated()
    assert operations == 5 * 2 * 8 * 4 * 4  # five passes more of a product
    assert traffic > 1


def test_what_lies_outside_of_loops_counts_as_xla_counts_it():
    """Of a convolution it leaves out what meets the padding, which loops beside must not change."""

    def run(x: jax.Array, kernel: jax.Array, weights: jax.Array, *, unroll: bool) -> jax.Array:
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights, unroll=unroll)[0]

    shape = jax.ShapeDtypeStruct
    arguments = (shape((1, 8, 6, 6), "f4"), shape((8, 8, 5, 5), "f4"), shape((9, 6, 6), "f4"))
    looped, unrolled = (
        speed.costs(jax.jit(partial(run, unroll=unroll)).lower(*arguments).compile())
        for unroll in (False, True)
    )
    assert looped.operations == pytest.approx(unrolled.operations, rel=0.01)


# One exchange that a TPU works on in pieces, beside others: each fusion of the chain names it.
CHAIN = """HloModule jit_step

%begin (a: f32[2,4]) -> f32[8,4] {
  %a = f32[2,4]{1,0} parameter(0)
  ROOT %g.1 = f32[8,4]{1,0} all-gather(%a), channel_id=20, dimensions={0}, frontend_attributes={chain_id="1"}, backend_config={"async_collective_fusion_config":{"flag_start":"-1","flag_end":"-1"}}
}

%piece (b: f32[2,4]) -> f32[8,4] {
  %b = f32[2,4]{1,0} parameter(0)
  ROOT %g.2 = f32[8,4]{1,0} all-gather(%b), channel_id=20, dimensions={0}, frontend_attributes={chain_id="1"}, backend_config={"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}}
}

ENTRY %main (x: f32[2,4]) -> f32[8,4] {
  %x = f32[2,4]{1,0} parameter(0)
  %start = f32[8,4]{1,0} fusion(%x), kind=kCustom, calls=%begin
  %more = f32[8,4]{1,0} fusion(%x), kind=kCustom, calls=%piece
  %again = f32[8,4]{1,0} fusion(%x), kind=kCustom, calls=%piece
  ROOT %other = f32[8,4]{1,0} all-gather(%x), channel_id=21, dimensions={0}
}
"""  # noqa: E501


def test_an_exchange_in_pieces_is_one():
    first, *middle, last = CHAIN.split("\n\n")
    for parts in (middle, middle[::-1]):
        found = Program("\n\n".join((first, *parts, last))).exchanges()
        assert found == {"all-gather": {"count": 2.0, "bytes": 2 * 8 * 4 * 4}}


# As compilers write attention kernels: of TPUs, with heads before positions, and of cuDNN.
KERNELS = """HloModule jit_step

ENTRY %main (q: bf16[2,5,256,64], k: bf16[2,5,512,64]) -> bf16[2,5,256,64] {
  %q = bf16[2,5,256,64]{3,2,1,0} parameter(0)
  %k = bf16[2,5,512,64]{3,2,1,0} parameter(1)
  %r = bf16[2,256,5,64]{3,2,1,0} parameter(2)
  %l = bf16[2,512,5,64]{3,2,1,0} parameter(3)
  %a = (bf16[2,5,256,64]{3,2,1,0}) custom-call(%q, %k, %k), custom_call_target="tpu_custom_call", METADATA/jit(flash_attention)/pallas_call"}
  %b = bf16[2,5,256,64]{3,2,1,0} custom-call(%q, %k, %k), custom_call_target="tpu_custom_call", METADATA/jit(flash_attention)/flash_mha_bwd_dq_block/pallas_call"}
  %c = (bf16[2,5,512,64]{3,2,1,0}) custom-call(%q, %k, %k), custom_call_target="tpu_custom_call", METADATA/jit(flash_attention)/flash_mha_bwd_dkv_block/pallas_call"}
  %d = (bf16[2,256,5,64]{3,2,1,0}) custom-call(%r, %l, %l), custom_call_target="__cudnn$fmhaSoftmax"
  %e = (bf16[2,256,5,64]{3,2,1,0}) custom-call(%r, %l, %l), custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %f = bf16[2,5,256,64]{3,2,1,0} custom-call(%q, %k), custom_call_target="ConcatBitcast", METADATA/jit(flash_attention)"}
  ROOT %g = bf16[2,5,256,64]{3,2,1,0} custom-call(%q, %k), custom_call_target="tpu_custom_call", METADATA/another"}
}
""".replace("METADATA", 'metadata={op_name="jit(step)')  # fmt: skip  # noqa: E501


def test_operations_of_fused_attention_are_counted_where_xla_does_not():
    """XLA knows what the forward kernel of TPUs does, and nothing of the others."""
    operations, _ = Program(KERNELS).repeated()
    assert operations == (6 + 8 + 4 + 10) * 2 * 5 * 256 * 512 * 64
