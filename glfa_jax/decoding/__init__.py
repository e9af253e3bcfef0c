"""Scans of any run to videos, a table and a page, by a trained decoder and nothing else."""
