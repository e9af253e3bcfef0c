"""What ends a command with a sentence instead of a traceback."""


class InputError(ValueError):
    """Bad input, the user's to mend: one clear sentence, what, where, and what would be right."""


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message is one sentence: what, where, what to do."""


class Stopped(Exception):
    """The run was asked to stop and has saved; the message says at which step."""


class Terminated(BaseException):
    """A scheduler or a closed terminal ends the command. Like KeyboardInterrupt no Exception, so
    that nothing takes it for a mistake in a file."""
