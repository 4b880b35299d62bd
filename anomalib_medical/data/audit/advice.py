"""What can be done about a shortcut, in a sentence a kind."""

from __future__ import annotations

from anomalib_medical.data.samples import METADATA

_FILES = (
    "Write all images anew from their originals, in one format with the same settings: a model does not see the file, "
    "but it sees what compression did to the pixels."
)
_SHAPES = (
    "Look whether the classes come from different devices or exports, or were cut out differently; then crop or pad "
    "all images to one shape in the same way before anything resizes them."
)
_GREY = (
    "Read all images with the same window (data.window), and look whether exposure, contrast medium or an export's "
    "automatic contrast differ between the classes. It may also be the disease itself, such as a dense lung."
)
_ADVICE = {
    **dict.fromkeys(("file_size", "file_type", "colour"), _FILES),
    **dict.fromkeys(("width", "height", "area", "aspect"), _SHAPES),
    **dict.fromkeys(("mean", "std"), _GREY),
    "sharpness": (
        "Look whether one class was resampled, smoothed or compressed more than the other: go back to originals of "
        "one resolution, and bring all to the model's size in the same way."
    ),
    "border": (
        "The outermost 2% differ in brightness: look for frames, burnt-in text, padding and background, and crop them "
        "away, of all images in the same way."
    ),
    "nearest_train_thumbnail": (
        "The normal test images look more like the training images than the abnormal ones do, or less: take both from "
        "the source that the training images are from, and from other patients than these."
    ),
}
_METADATA = (
    "Take both classes from every group that it makes, in like shares; or judge models within the groups, as the "
    "report of a benchmark does for every column meta_*."
)


def advice_on(shortcut: str) -> str:
    """What to look for, and to do, if the data have a shortcut of this name."""
    return _METADATA if shortcut.startswith(METADATA) else _ADVICE[shortcut]
