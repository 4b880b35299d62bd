"""Numbers in words for people."""


def duration(seconds: float) -> str:
    """A time in the unit that suits it, such as ``2.5 min``."""
    if seconds < 100:
        number, unit = seconds, "s"
    elif seconds < 100 * 60:
        number, unit = seconds / 60, "min"
    elif seconds < 48 * 3600:
        number, unit = seconds / 3600, "h"
    else:
        number, unit = seconds / 86400, "days"
    return f"{number:.1f}".removesuffix(".0") + f" {unit}"
