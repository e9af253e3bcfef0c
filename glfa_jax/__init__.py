"""Cross-subject fMRI-to-video decoding in JAX."""

__version__ = "0.1.0"
