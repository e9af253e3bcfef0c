"""Mutated files for every parser: no traceback, no hang, no memory that they do not explain."""
