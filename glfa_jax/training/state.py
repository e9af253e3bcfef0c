"""What training carries from step to step."""

from typing import Any

import flax.struct
import optax
from jaxtyping import Array, Int


@flax.struct.dataclass
class TrainState:
    """Everything a step changes.

    The random key of a step is `fold_in(key(seed), step)`, so no key is kept here.

    step: number of updates made so far.
    params: the trainable parameters only, as nested dicts.
    """

    step: Int[Array, ""]
    params: dict[str, Any]
    opt_state: optax.OptState
