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
    """What a model's pre-processor does to places; an UnknownPlaceError if that is not known."""
    pre_processor = getattr(model, "pre_processor", None)
    # A module of another kind is a transform itself.
    return steps_of(getattr(pre_processor, "transform", pre_processor))


class Places:
    """Where the maps of a run lie on the images as they are in their files.

    The model's pre-processor is asked, and the augmentations of the dataset, which come before; an UnknownPlaceError if
    what one does to places is not known. ``are_whole`` says whether each map covers its image and nothing else,
    whatever the image's size.
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
        return (_resize(known.size, known.max_size),)
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


def _resize(size: Sequence[int] | None, max_size: int | None) -> Step:
    longest = () if max_size is None else (int(max_size),)
    if size is None:
        return Step("resize_longer", longest)
    sizes = tuple(map(int, size))
    return Step("resize", sizes) if len(sizes) == 2 else Step("resize_shorter", sizes + longest)


def _padding(padding: int | Sequence[int]) -> tuple[int, ...]:
    """Left, top, right and bottom: one number is of all sides, two are of left and top and their opposites."""
    given = (padding,) if isinstance(padding, int) else tuple(padding)
    return given * (4 // len(given))
