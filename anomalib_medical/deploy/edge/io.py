"""The reading code of the training; in a bundle, a copy of its folder takes this file's place."""

from anomalib_medical.data.io import (
    Axis,
    ImageAddress,
    ImageReadError,
    NoImageError,
    Slicing,
    Window,
    agree,
    counted,
    dicom_facts,
    list_images,
    list_pictures,
    read_pixels,
)

__all__ = [
    "Axis",
    "ImageAddress",
    "ImageReadError",
    "NoImageError",
    "Slicing",
    "Window",
    "agree",
    "counted",
    "dicom_facts",
    "list_images",
    "list_pictures",
    "read_pixels",
]
