"""Checks of arguments that several models have."""

from collections.abc import Sequence

from anomalib_medical.errors import MedicalError

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


class PrecisionError(MedicalError, ValueError):
    """The trainer's precision is none that these models have."""


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


def check_precision(precision: str | int | None) -> None:
    """Refuse weights that are not float32: images, distances and thresholds are.

    Args:
        precision: As a trainer takes it, also in Lightning's short forms.

    Raises:
        PrecisionError: If they would not be.
    """
    full = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(str(precision), precision)
    if full not in _PRECISIONS:
        msg = (
            f"--trainer.precision: got {precision}, expected 32-true, 16-mixed or bf16-mixed: the weights stay "
            "float32, as images and thresholds are."
        )
        raise PrecisionError(msg)


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
