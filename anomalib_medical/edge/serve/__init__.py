"""`serve`: studies in from an archive or a sender, results back to it; each series once, whatever ends on either side.

One loop (`service.py`) takes series from a spool (`spool.py`), scores them and sends what was made. What was done is in
one database (`book.py`). How series come and results go is a module each: `dicomweb.py`, `dimse.py`, `mercure.py`.
"""


class UnavailableError(Exception):
    """The other side cannot be used now: wait, and do the same again. The message names nobody."""


class RefusedError(Exception):
    """The other side does not take or give this; others may be well. The message names nobody."""
