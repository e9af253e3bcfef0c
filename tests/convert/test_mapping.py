"""The conversion engine: total both ways, all errors at once, and exact."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from glfa_jax.convert import glfa, mapping
from glfa_jax.convert.mapping import ConversionError, Table, export_params, import_params
from glfa_jax.errors import InputError

TRANSFORMS = {
    "SAME": ((3, 2), (3, 2)),
    "LINEAR": ((5, 3), (3, 5)),
    "CONV1D": ((7, 5, 3), (3, 5, 7)),
    "CONV2D": ((7, 5, 3, 2), (3, 2, 5, 7)),
    "CONV3D": ((7, 5, 4, 3, 2), (4, 3, 2, 5, 7)),
    "POINTWISE1D": ((7, 5, 1), (5, 7)),
    "POINTWISE2D": ((7, 5, 1, 1), (5, 7)),
    "POINTWISE3D": ((7, 5, 1, 1, 1), (5, 7)),
    "CHANNELS2D": ((7, 1, 1), (7,)),
    "CHANNELS3D": ((7, 1, 1, 1), (7,)),
    "TEMPORAL": ((7, 5, 3, 1, 1), (3, 5, 7)),
}
PLAIN = Table()


def random(shape: tuple[int, ...], *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def zeros_like(tree: dict) -> dict:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (value.shape, value.dtype), name
        assert ours[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_has_its_shapes_and_its_inverse(name):
    transform = getattr(mapping, name)
    torch_shape, linen_shape = TRANSFORMS[name]
    assert transform.name == name
    tensor = random(torch_shape)
    linen = transform.to_linen(tensor)
    assert linen.shape == linen_shape
    np.testing.assert_array_equal(transform.to_torch(linen), tensor)
    np.testing.assert_array_equal(transform.to_linen(transform.to_torch(linen)), linen)


def test_every_transform_is_tested():
    defined = {
        name for name, value in vars(mapping).items() if isinstance(value, mapping.Transform)
    }
    assert defined == set(TRANSFORMS)


def test_a_linear_kernel_is_transposed_and_a_convolution_keeps_its_taps():
    source = {"fc.weight": random((2, 3)), "conv.weight": random((4, 3, 5, 6))}
    target = {"fc": {"kernel": np.zeros((3, 2))}, "conv": {"kernel": np.zeros((5, 6, 3, 4))}}
    params = import_params(source, target, PLAIN)
    assert params["fc"]["kernel"][2, 1] == source["fc.weight"][1, 2]
    assert params["conv"]["kernel"][4, 5, 2, 1] == source["conv.weight"][1, 2, 4, 5]


_NAMES = st.sampled_from(["a", "b", "blocks.0", "blocks.1", "to_out.0", "norm1"])
_SIDES = st.integers(1, 3)
_LEAVES = st.one_of(
    st.integers(2, 5).flatmap(
        lambda rank: st.tuples(st.just("kernel"), st.tuples(*[_SIDES] * rank))
    ),
    st.tuples(st.sampled_from(["scale", "bias"]), st.tuples(_SIDES)),
    st.tuples(st.just("embedding"), st.tuples(_SIDES, _SIDES)),
    st.tuples(st.just("token"), st.sampled_from([(), (1,), (2, 0), (1, 2, 3)])),
)
_DTYPES = st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16, np.int32])


@st.composite
def trees(draw) -> dict:
    """A tree whose leaves are kernels of each rank, norms, embeddings and bare parameters."""
    flat = {}
    for path in draw(st.lists(st.tuples(_NAMES, _NAMES), min_size=1, max_size=5, unique=True)):
        leaf, shape = draw(_LEAVES)
        values = random(shape, seed=draw(st.integers(0, 99))) * 10
        flat[(*path, leaf)] = values.astype(draw(_DTYPES))
    return unflatten_dict(flat)


@settings(max_examples=40, deadline=None)
@given(tree=trees())
def test_export_and_import_invert_each_other_bit_for_bit(tree):
    exported = export_params(tree, PLAIN)
    assert len(exported) == len(flatten_dict(tree))
    assert all(tensor.flags["C_CONTIGUOUS"] for tensor in exported.values())
    params = import_params(exported, zeros_like(tree), PLAIN)
    assert_same(flatten_dict(params), flatten_dict(tree))
    assert_same(export_params(params, PLAIN), exported)


@settings(max_examples=25, deadline=None)
@given(tree=trees(), data=st.data())
def test_whatever_is_missing_unused_or_misshapen_is_rejected(tree, data):
    exported = export_params(tree, PLAIN)
    name = data.draw(st.sampled_from(sorted(exported)))
    change = data.draw(st.sampled_from(["missing", "unused", "shape"]))
    if change == "missing":
        del exported[name]
    elif change == "unused":
        name = f"{name}_extra"
        exported[name] = random((2,))
    else:
        exported[name] = exported[name][None]
    with pytest.raises(ConversionError) as error:
        import_params(exported, zeros_like(tree), PLAIN)
    assert str(error.value).startswith("1 tensors do not fit:\n")
    assert f"{change}: {name}" in str(error.value)


def test_all_errors_are_listed_together():
    target = {
        "fc": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)},
        "conv": {"kernel": np.zeros((3, 3, 1, 4))},
        "norm": {"scale": np.zeros(4)},
    }
    source = {
        "fc.weight": random((3, 2)),
        "conv.weight": random((4, 3)),
        "norm.weight": random((4,)),
        "norm.bias": random((4,)),
    }
    with pytest.raises(ConversionError) as error:
        import_params(source, target, PLAIN)
    assert str(error.value).splitlines() == [
        "4 tensors do not fit:",
        "  missing: fc.bias",
        "  unused: norm.bias",
        "  shape: fc.weight is (3, 2), expected (2, 3)",
        "  shape: conv.weight is (4, 3), expected (4, 1, 3, 3)",
    ]
    assert isinstance(error.value, InputError)


@pytest.mark.parametrize(
    ("transform", "leaf", "wrong"),
    [
        (mapping.POINTWISE1D, (5, 7), (7, 5, 3)),
        (mapping.POINTWISE2D, (5, 7), (7, 5, 3, 3)),
        (mapping.TEMPORAL, (3, 5, 7), (7, 5, 3, 3, 3)),
        (mapping.CONV2D, (3, 3, 5, 7), (7, 5, 9)),
        (glfa.ALIGNMENT.transforms[0][1], (4, 4), (1, 2, 4, 4)),
        (glfa.ALIGNMENT.transforms[1][1], (4, 4, 9), (2, 1, 1, 4, 4, 9)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_no_transform_drops_what_is_too_much(transform, leaf, wrong):
    """Taking the first of three taps would give the right shape and the wrong model."""
    table = Table(transforms=(("", transform),))
    with pytest.raises(ConversionError, match=r"shape: conv\.weight is"):
        import_params({"conv.weight": random(wrong)}, {"conv": {"kernel": np.zeros(leaf)}}, table)


def test_two_parameters_of_one_name_are_rejected_both_ways():
    tree = {"norm": {"scale": np.zeros(2), "weight": np.ones(2)}}
    with pytest.raises(ConversionError, match=r"two parameters map to 'norm.weight'"):
        import_params({"norm.weight": random((2,))}, tree, PLAIN)
    with pytest.raises(ConversionError, match=r"two parameters map to 'norm.weight'"):
        export_params(tree, PLAIN)
    merging = Table(rename=((r"^[ab]\.", "c."),))
    with pytest.raises(ConversionError, match=r"two parameters map to 'c.bias'"):
        export_params({"a": {"bias": np.zeros(2)}, "b": {"bias": np.zeros(2)}}, merging)


def test_names_are_rewritten_in_order_and_decide_the_transform():
    table = Table(
        rename=((r"^first\.", "second."), (r"^second\.", "third.")),
        transforms=((r"^third\.", mapping.POINTWISE1D), (r"third", mapping.SAME)),
    )
    source = {"third.weight": random((4, 3, 1))}
    params = import_params(source, {"first": {"kernel": np.zeros((3, 4))}}, table)
    np.testing.assert_array_equal(params["first"]["kernel"], source["third.weight"][:, :, 0].T)
    assert_same(export_params(params, table), source)


def test_only_the_ignored_may_be_left_over():
    table = Table(ignore=(r"position_ids$",))
    target = {"a": {"bias": np.zeros(2)}}
    source = {"a.bias": random((2,)), "embeddings.position_ids": np.arange(4)}
    assert set(import_params(source, target, table)["a"]) == {"bias"}
    with pytest.raises(ConversionError, match=r"unused: position_ids\.old"):
        import_params(source | {"position_ids.old": np.arange(4)}, target, table)


def test_names_cannot_write_lines_of_their_own():
    source = {"a\n  missing: \x1b[31mb": np.zeros(1)}
    with pytest.raises(ConversionError) as error:
        import_params(source, {}, Table())
    assert str(error.value).splitlines()[1:] == [r"  unused: 'a\n  missing: \x1b[31mb'"]


def test_eight_bits_are_no_parameters():
    target = {"a": {"bias": np.zeros(2, np.float32)}}
    source = {"a.bias": np.zeros(2, ml_dtypes.float8_e5m2)}
    with pytest.raises(ConversionError, match=r"dtype: a\.bias is float8_e5m2, expected floating"):
        import_params(source, target, Table())


def test_scalars_pass():
    source = {"logit_scale": np.array(2.5, np.float32)}
    shapes = {"logit_scale": jax.ShapeDtypeStruct((), np.float32)}
    params = import_params(source, shapes, PLAIN)
    assert params["logit_scale"].shape == ()
    assert_same(export_params(params, PLAIN), source)
    with pytest.raises(ConversionError, match=r"shape: logit_scale is \(1,\), expected \(\)"):
        import_params({"logit_scale": random((1,))}, shapes, PLAIN)
