"""Scored runs against each other: which may be compared, and whether they differ."""
