"""The runtime of a bundle, run there with ``python -m edge``, without torch and anomalib.

Only relative imports, `io`, the standard library and what the bundle's requirements.txt names may be imported here.
"""


class EdgeError(Exception):
    """The runtime cannot go on; the message says what was found and what to do, and is all that an engineer needs."""
