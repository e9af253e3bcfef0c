"""What XLA is told of the libraries of a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.training import cpu_libraries
from glfa_jax.training.cpu_libraries import compiler_options

OF_SUMS, OF_PRODUCTS = "REDUCE", "INDIVIDUAL_DOT"


def program(function, *shapes):
    return jax.jit(function).trace(*(jnp.ones(shape) for shape in shapes)).jaxpr


def scores(x):
    return jnp.einsum("nqd,nkd->nqk", x, x)


def in_loop(x):
    return jax.lax.scan(lambda carried, _: (scores(carried)[..., :8], None), x, length=2)[0]


def libraries(found):
    (value,) = found.values()
    return value


def test_convolutions_and_products_are_taken_from_ynnpack():
    found = libraries(compiler_options("cpu"))
    assert OF_SUMS in found
    assert OF_PRODUCTS not in found
    assert "CONVOLUTION" not in found


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_other_devices_are_told_nothing(platform):
    assert compiler_options(platform, program(scores, (4096, 4, 8))) == {}


@pytest.mark.parametrize("function", [scores, in_loop, jax.checkpoint(scores)])
def test_many_small_products_are_left_to_it_wherever_they_are(function):
    found = libraries(compiler_options("cpu", program(function, (4096, 8, 8))))
    assert OF_PRODUCTS in found
    assert "CONVOLUTION" not in found


@pytest.mark.parametrize(
    "shape",
    [(16, 8, 8), (1024, 64, 64)],
    ids=["few", "large"],
)
def test_few_or_large_products_are_not(shape):
    assert OF_PRODUCTS not in libraries(compiler_options("cpu", program(scores, shape)))


def test_a_compiler_without_the_option_is_told_nothing(monkeypatch):
    monkeypatch.setattr(cpu_libraries, "_KEY", "xla_cpu_of_another_version")
    cpu_libraries._known.cache_clear()
    assert compiler_options("cpu") == {}
    cpu_libraries._known.cache_clear()


@pytest.mark.parametrize("small", [False, True])
def test_a_program_computes_the_same(small):
    x = jax.random.normal(jax.random.key(0), (1024, 4, 8))
    traced = jax.jit(scores).trace(x)
    options = compiler_options("cpu", traced.jaxpr if small else None)
    found = traced.lower().compile(compiler_options=options)(x)
    np.testing.assert_allclose(found, scores(x), atol=1e-5)
