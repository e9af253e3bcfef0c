"""Captions for studies that have none, by an image captioner that looks at frames of each clip."""
