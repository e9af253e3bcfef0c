"""Decodes the test clips of finished runs, scores and compares: a module a step."""
