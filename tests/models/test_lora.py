"""Low-rank updates beside kernels are those that are merged into them, and cost less."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.interpreters.partial_eval import dce_jaxpr

from benchmarks import models
from glfa_jax.convert import pretrained
from glfa_jax.generators import GENERATORS
from glfa_jax.models.layers import Dense
from glfa_jax.models.lora import beside, init_lora, merge
from tests.computed import computed

WIDTH, OUT, LONG = 5, 7, 11


class Two(nn.Module):
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(WIDTH, (3,), dtype=self.dtype, name="over_time")(x)
        return Dense(OUT, dtype=self.dtype, name="mix")(jnp.tanh(y))


@pytest.fixture(scope="module")
def given() -> tuple[dict, dict, np.ndarray]:
    """Parameters, an update of both kernels that is not zero, and inputs."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(Two().init, jax.random.key(0), jnp.zeros((1, LONG, WIDTH)))["params"]
    draw = lambda x: rng.standard_normal(x.shape).astype(np.float32)  # noqa: E731
    lora = init_lora(shapes, patterns=("kernel$",), rank=2, key=jax.random.key(1))
    params, update = jax.tree.map(draw, shapes), jax.tree.map(draw, lora)
    return params, update, rng.standard_normal((3, LONG, WIDTH)).astype(np.float32)


def test_the_same_outputs_and_gradients(given):
    params, lora, x = given

    def loss(lora: dict, join: Any) -> jax.Array:
        y: Any = Two().apply({"params": join(params, lora, scale=0.5)}, x)
        return jnp.square(y).mean()

    found, wanted = (jax.value_and_grad(loss)(lora, join) for join in (beside, merge))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found, wanted)


def test_no_gradient_of_a_whole_kernel(given):
    params, lora, x = given

    def shapes(join: Any) -> set[tuple[int, ...]]:
        def loss(lora: dict) -> jax.Array:
            y: Any = Two().apply({"params": join(params, lora, scale=0.5)}, x)
            return jnp.square(y).mean()

        program = jax.make_jaxpr(jax.grad(loss))(lora)
        return {shape for shape, _ in computed(program.jaxpr)}

    kernel = {(WIDTH, OUT), (OUT, WIDTH)}
    assert kernel & shapes(merge)
    assert not kernel & shapes(beside)


def test_a_small_update_is_not_rounded_away(given):
    """Kernels in 16 bits have steps of an eighth of a thousandth and more where these are 1."""
    _, lora, _ = given
    module = Dense(OUT, dtype=jnp.bfloat16)
    params = {"kernel": jnp.ones((WIDTH, OUT), jnp.bfloat16), "bias": jnp.zeros(OUT)}
    small = {"kernel": jax.tree.map(jnp.abs, lora["mix"]["kernel"])}
    x = jnp.zeros((1, WIDTH)).at[0, 0].set(1).at[0, 1].set(-1)
    wanted = 1e-3 * (small["kernel"]["down"][0] - small["kernel"]["down"][1])
    wanted = wanted @ small["kernel"]["up"]
    found, lost = (
        module.apply({"params": join(params, small, scale=1e-3)}, x) for join in (beside, merge)
    )
    np.testing.assert_allclose(found[0], wanted, rtol=0.05, atol=5e-5)
    assert (np.asarray(lost) == 0).any()


@pytest.mark.parametrize(
    ("kind", "inputs"), [("unet3d", (1, 2, 2, 2, 4)), ("wan", (1, 1, 2, 2, 16))]
)
def test_every_update_of_a_generator_is_read(kind, inputs):
    """One beside a kernel that is no `Dense` would never train."""
    chosen = GENERATORS[kind].trainable["lora"]
    assert chosen.beside
    settings = models.TINY[kind]
    module, shapes = pretrained.build(kind, settings, remat=True), models.shapes_of(kind, settings)
    lora = jax.eval_shape(
        lambda tree: init_lora(tree, patterns=chosen.patterns, rank=1, key=jax.random.key(0)),
        shapes,
    )

    def denoise(lora: dict, params: dict) -> Any:
        sample, condition = jnp.zeros(inputs), jnp.zeros((1, 3, 12))
        variables = {"params": beside(params, lora, scale=1.0)}
        return module.apply(variables, sample, jnp.zeros((), jnp.int32), condition)

    program = jax.make_jaxpr(denoise)(lora, shapes).jaxpr
    _, used = dce_jaxpr(program, [True] * len(program.outvars))
    names = ["/".join(path) for path in sorted(flatten_dict(lora))]
    idle = [name for name, is_used in zip(names, used, strict=False) if not is_used]
    assert not idle


def test_what_fits_nothing_is_rejected(given):
    params, lora, _ = given
    for join in (beside, merge):
        with pytest.raises(ValueError, match=r"lora: mix/kernel is no parameter of this model"):
            join({"over_time": params["over_time"]}, lora, scale=1.0)
        wide = {"mix": {"kernel": {"down": np.ones((WIDTH, 2)), "up": np.ones((2, OUT + 1))}}}
        with pytest.raises(ValueError, match=r"lora: mix/kernel makes \(5, 8\), the parameter is"):
            join(params, wide, scale=1.0)
