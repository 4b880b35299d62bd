"""Checks of constructor arguments that several models have."""

from collections.abc import Sequence


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: If it is not.
    """
    if value not in choices:
        msg = f"{name}: got {value!r}, expected one of {', '.join(choices)}."
        raise ValueError(msg)


def check_seed(seed: int | None) -> None:
    """Refuse negative seeds.

    Raises:
        ValueError: If it is negative.
    """
    if seed is not None and seed < 0:
        msg = f"seed: got {seed}, expected 0 or more, or null for none."
        raise ValueError(msg)


def check_image_size(image_size: int | Sequence[int], multiple: int, smallest: int, reason: str) -> tuple[int, int]:
    """Make height and width of a side or a pair.

    Args:
        image_size: Side of a square, or height and width.
        multiple: What both must be a multiple of.
        smallest: What both must be at least.
        reason: Why, for the message.

    Raises:
        ValueError: If it cannot be used.
    """
    size = (image_size, image_size) if isinstance(image_size, int | float) else tuple(image_size)
    if len(size) != 2 or any(not isinstance(side, int) or side < smallest or side % multiple for side in size):
        msg = f"image_size: got {image_size!r}, expected multiples of {multiple} of at least {smallest} ({reason})."
        raise ValueError(msg)
    return size[0], size[1]
