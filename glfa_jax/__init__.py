"""Cross-subject fMRI-to-video decoding in JAX."""

from glfa_jax.starting import end_quietly

__version__ = "0.2.0"

end_quietly()
