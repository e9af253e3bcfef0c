"""Names of EfficientNetModel as transformers stores it, alone or with its classifier, for
models.efficientnet."""

from collections.abc import Iterable

from glfa_jax.convert.mapping import Table

# How many batches the statistics are of.
_COUNT = r"\.num_batches_tracked$"

TABLE = Table(ignore=(_COUNT,))

# The same in an EfficientNetForImageClassification, whose logits nobody asks for.
TABLE_WITH_CLASSIFIER = Table(
    rename=((r"^", "efficientnet."),), ignore=(_COUNT, r"^classifier\.(weight|bias)$")
)


def table(names: Iterable[str]) -> Table:
    """The table that reads a model with these tensor names."""
    classifies = any(name.startswith("efficientnet.") for name in names)
    return TABLE_WITH_CLASSIFIER if classifies else TABLE
