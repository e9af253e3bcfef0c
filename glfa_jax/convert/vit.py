"""Names of ViTForImageClassification as transformers stores it, for models.vit_classifier."""

from glfa_jax.convert.mapping import Table

# From the shared encoder block's names to those of a stored ViT or VideoMAE layer.
LAYER_NAMES = (
    (r"\.layer_norm1\.", ".layernorm_before."),
    (r"\.layer_norm2\.", ".layernorm_after."),
    (r"\.self_attn\.q_proj\.", ".attention.attention.query."),
    (r"\.self_attn\.k_proj\.", ".attention.attention.key."),
    (r"\.self_attn\.v_proj\.", ".attention.attention.value."),
    (r"\.self_attn\.out_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)

TABLE = Table(rename=LAYER_NAMES)
