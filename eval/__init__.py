"""Commands, one file a stage."""

import glfa_jax  # noqa: F401  (ends them quietly while they import)
