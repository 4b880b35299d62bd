"""Checks of arguments that several models have."""

from collections.abc import Sequence

from anomalib_medical.errors import MedicalError

_PRECISIONS = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Lightning's short forms


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        msg = f"{name}: got {value!r}, expected one of {', '.join(choices)}."
        raise ValueError(msg)


def check_seed(seed: int | None) -> None:
    """Refuse negative seeds."""
    if seed is not None and seed < 0:
        msg = f"seed: got {seed}, expected 0 or more, or null for none."
        raise ValueError(msg)


def check_precision(precision: str | int | None) -> None:
    """Refuse a trainer's precision with weights that are not float32: images, distances and thresholds are."""
    if _PRECISIONS.get(str(precision), precision) not in _PRECISIONS.values():
        msg = (
            f"--trainer.precision: got {precision}, expected 32-true, 16-mixed or bf16-mixed: the weights stay "
            "float32, as images and thresholds are."
        )
        raise MedicalError(msg)


def check_image_size(image_size: int | Sequence[int], multiple: int, smallest: int, reason: str) -> tuple[int, int]:
    """Make height and width of a side or a pair, which must be multiples of a number (for the reason that is told)."""
    size = (image_size, image_size) if isinstance(image_size, int | float) else tuple(image_size)
    if len(size) != 2 or any(not isinstance(side, int) or side < smallest or side % multiple for side in size):
        msg = f"image_size: got {image_size!r}, expected multiples of {multiple} of at least {smallest} ({reason})."
        raise ValueError(msg)
    return size[0], size[1]
