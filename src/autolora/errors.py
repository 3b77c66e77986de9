"""Errors that a user can mend; the bottom layer, imported by every other."""


class InputError(ValueError):
    """What the user gave cannot work.

    The message is one line: what was given, why it cannot work, what to do. The command line prints it to stderr
    without a traceback and exits with status 2.
    """
