"""Counts in sentences."""


def agree(number: float, one: str, many: str) -> str:
    """The word that a count asks for: ``agree(1, "is", "are")``."""
    return one if number == 1 else many


def counted(number: int, noun: str, plural: str = "") -> str:
    """A count and its noun: ``1 image``, ``2 images``; ``counted(2, "study", "studies")``."""
    return f"{number} {agree(number, noun, plural or f'{noun}s')}"
