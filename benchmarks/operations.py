"""Counts the operations that a program asks for, before a compiler changes it."""

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params


def operations(program: ClosedJaxpr | Jaxpr) -> float:
    """Of matrix products and convolutions, two a multiply-add; loops as often as they run.

    Kernels, which hide what they compute, count nothing.
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    total = 0.0
    for equation in jaxpr.eqns:
        result = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            left = equation.invars[0].aval.shape
            contracted = equation.params["dimension_numbers"][0][0]
            total += 2 * result * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            total += 2 * result * _taps(equation)
        inner = [operations(each) for each in jaxprs_in_params(equation.params)]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * (max(inner) if equation.primitive.name == "cond" else sum(inner))
    return total


def _taps(convolution: Any) -> float:
    """Multiply-adds of one number of the result; those with zeros between inputs are none."""
    kernel = convolution.invars[1].aval.shape
    _, *rest = convolution.params["dimension_numbers"].rhs_spec
    holes = math.prod(convolution.params["lhs_dilation"])
    return math.prod(kernel[axis] for axis in rest) / holes
