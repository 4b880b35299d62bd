"""What transforms do to places: from torchvision's and anomalib's to the steps that devices know too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from anomalib.data.transforms import ExportableCenterCrop, SquarePad
from torch import nn
from torchvision.transforms import v2

from anomalib_medical.edge.geometry import Placement, Step, place, size_after
from anomalib_medical.errors import MedicalError

# They change values, and leave every pixel where it is.
_VALUES_ONLY = (
    v2.ColorJitter,
    v2.ConvertImageDtype,
    v2.GaussianBlur,
    v2.GaussianNoise,
    v2.Grayscale,
    v2.Identity,
    v2.Normalize,
    v2.RGB,
    v2.ToDtype,
    v2.ToImage,
    v2.ToPureTensor,
)


# They bring all of an image to all of the result.
_STRETCHES = frozenset({"resize", "resize_shorter", "resize_longer"})


class UnknownPlaceError(MedicalError):
    """Where a map lies on its image cannot be told."""


def steps_of(*transforms: nn.Module | None) -> tuple[Step, ...]:
    """Translate transforms that are applied one after the other.

    Raises:
        UnknownPlaceError: If one is random, turns or bends images, or is not known.
    """
    return tuple(step for transform in transforms if transform is not None for step in _steps(transform))


def model_steps(model: object) -> tuple[Step, ...]:
    """What a model's pre-processor does to places.

    Raises:
        UnknownPlaceError: If that is not known.
    """
    pre_processor = getattr(model, "pre_processor", None)
    # A module of another kind is a transform itself.
    return steps_of(getattr(pre_processor, "transform", pre_processor))


class Places:
    """Where the maps of a run lie on the images as they are in their files.

    Args:
        model: Its pre-processor is asked.
        dataset: Its augmentations are, which come before.

    Raises:
        UnknownPlaceError: If a transform's effect on places is not known.

    Attributes:
        are_whole: Whether each map covers its image and nothing else, whatever the image's size.
    """

    def __init__(self, model: object, dataset: object) -> None:
        self._augmentations = steps_of(getattr(dataset, "augmentations", None))
        self._pre_processing = model_steps(model)
        self.are_whole = {step.kind for step in self._augmentations + self._pre_processing} <= _STRETCHES

    def of(self, sizes: Sequence[tuple[int, int]]) -> list[Placement]:
        """Place the maps of a batch, given the heights and widths of its images."""
        collated = [size_after(self._augmentations, size) for size in sizes]
        # anomalib brings images that differ to the size of the one with the longest side.
        together = (Step("resize", max(collated, key=max)),) if len(set(collated)) > 1 else ()
        return [place((*self._augmentations, *together, *self._pre_processing), size) for size in sizes]


def keeps_places_until_resize(transform: nn.Module | None) -> bool:
    """Whether a pre-processing's first Resize may as well come before all the rest, where datamodules put it."""
    parts = transform.transforms if isinstance(transform, v2.Compose) else [transform]
    for part in parts:
        if isinstance(part, v2.Resize):
            return True
        try:
            if steps_of(part):
                return False
        except UnknownPlaceError:
            return False
    return True


def _steps(transform: nn.Module) -> Iterable[Step]:
    # Subclasses may do anything.
    kind: type = type(transform)
    known: Any = transform
    if kind is v2.Compose:
        return steps_of(*known.transforms)
    if kind in _VALUES_ONLY:
        return ()
    if kind is v2.Resize:
        return (_resize(known),)
    if kind in {v2.CenterCrop, ExportableCenterCrop}:
        return (Step("center_crop", tuple(map(int, known.size))),)
    if kind is SquarePad:
        return (Step("square_pad"),)
    if kind is v2.Pad:
        return (Step("pad", _padding(known.padding)),)
    msg = (
        f"Where the model's map lies on an image is not known after {kind.__name__}: expected transforms that resize, "
        "crop the center or pad, and such as leave pixels in their places. Random ones belong into train_augmentations."
    )
    raise UnknownPlaceError(msg)


def _resize(transform: v2.Resize) -> Step:
    if transform.size is None:
        return Step("resize_longer", (int(transform.max_size),))
    if len(transform.size) == 2:
        return Step("resize", (int(transform.size[0]), int(transform.size[1])))
    longest = () if transform.max_size is None else (int(transform.max_size),)
    return Step("resize_shorter", (int(transform.size[0]), *longest))


def _padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom."""
    given = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = given if len(given) == 4 else (given * 2 if len(given) == 2 else given * 4)
    return left, top, right, bottom
