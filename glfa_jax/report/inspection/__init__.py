"""A page on which a person sees whether a preparation went right."""
