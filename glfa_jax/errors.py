"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: one clear sentence, saying what, where, and what would be right."""
