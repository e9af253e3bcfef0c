"""Which library computes a program's products and convolutions on a CPU.

Left to itself, XLA:CPU (jaxlib 0.10) has YNNPACK compute products, convolutions and sums. Eigen
takes two thirds of its time for convolutions and as long or less for large products, but four times
as long for many small ones, such as attention over a few frames at every pixel
(benchmarks/cpu_libraries.py).
"""

import math
from functools import cache
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params

# Of an operation: so many products of fewer multiply-adds each are faster with YNNPACK.
_MANY, _SMALL = 1024, 2**16

_KEY = "xla_cpu_experimental_ynn_fusion_type"  # what YNNPACK computes
_SUMS, _PRODUCTS = (f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("REDUCE", "INDIVIDUAL_DOT"))


def compiler_options(platform: str, program: ClosedJaxpr | None = None) -> dict[str, str]:
    """For `jax.jit` or `compile`: convolutions by Eigen, and products unless many are small.

    platform: of the devices that are compiled for; those other than "cpu" need no options.
    program: one with gradients. Without them, what is small goes together with the sums around it.
    """
    if platform != "cpu":
        return {}
    small = program is not None and _has_small_products(program.jaxpr)
    return _known(f"{_SUMS},{_PRODUCTS}" if small else _SUMS)


@cache
def _known(kinds: str) -> dict[str, str]:
    """Nothing where this version of jaxlib has no such option."""
    options: dict[str, Any] = {_KEY: kinds}
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def _has_small_products(program: Jaxpr) -> bool:
    return any(
        _is_of_small_products(equation)
        if equation.primitive.name == "dot_general"
        else any(map(_has_small_products, jaxprs_in_params(equation.params)))
        for equation in program.eqns
    )


def _is_of_small_products(dot: Any) -> bool:
    (contracted, _), (batch, _) = dot.params["dimension_numbers"]
    left = dot.invars[0].aval.shape
    count = math.prod(left[axis] for axis in batch)
    total = math.prod(left[axis] for axis in contracted) * dot.outvars[0].aval.size
    return count >= _MANY and total < count * _SMALL
