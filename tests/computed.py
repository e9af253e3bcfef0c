"""What a traced program computes on its way."""

from collections.abc import Iterator
from typing import Any

from jax.extend.core import Jaxpr, jaxprs_in_params


def computed(program: Jaxpr) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every array, those of the programs that it runs inside included."""
    for equation in program.eqns:
        yield from ((tuple(x.aval.shape), x.aval.dtype) for x in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from computed(inner)
