"""The training stages, a module each, and what they share."""
