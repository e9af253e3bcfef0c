"""Names of CLIP as transformers stores it: the whole CLIPModel, and a CLIPTextModel alone."""

from collections.abc import Iterable

from glfa_jax.convert.mapping import Table

# Position indices, which older versions stored.
_IGNORE = (r"embeddings\.position_ids$",)

# glfa_jax.models.clip_model.Clip
TABLE = Table(ignore=_IGNORE)

# glfa_jax.models.clip_model.ClipText, as in the text_encoder folder of a diffusers pipeline;
# write this.
TEXT_TABLE = Table(rename=((r"^", "text_model."),), ignore=_IGNORE)

# The same as transformers 5 writes a CLIPTextModel that it did not load from an older file.
TEXT_TABLE_BARE = Table(ignore=_IGNORE)


def text_table(names: Iterable[str]) -> Table:
    """The table that reads a text encoder with these tensor names."""
    prefixed = any(name.startswith("text_model.") for name in names)
    return TEXT_TABLE if prefixed else TEXT_TABLE_BARE
