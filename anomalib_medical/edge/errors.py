"""The error whose message is all that an engineer needs."""


class EdgeError(Exception):
    """The runtime cannot go on; the message says what was found and what to do."""
