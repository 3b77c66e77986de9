"""Errors that a user can understand; the bottom layer, imported by every other."""


class InputError(ValueError):
    """What the user gave cannot work.

    The message is one line: what was given, why it cannot work, what to do. The command line prints it to stderr
    without a traceback and exits with status 2.
    """


class RunError(RuntimeError):
    """A run cannot go on, through nobody's mistake in the command: a full disk, a lost file, a loss that is no number.

    The message is one line: what happened, what is kept, what to do. The command line prints it to stderr without a
    traceback and exits with status 1.
    """
