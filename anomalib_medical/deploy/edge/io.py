"""The reading code of the training; in a bundle, a copy of its folder takes this file's place."""

from anomalib_medical.data.io import (
    FORMATS,
    OWN_MANUFACTURER,
    Axis,
    ImageAddress,
    ImageReadError,
    NoImageError,
    Slicing,
    Window,
    dicom_facts,
    irregular,
    list_folder,
    list_pictures,
    read_pixels,
    readable,
    require_file,
)

__all__ = [
    "FORMATS",
    "OWN_MANUFACTURER",
    "Axis",
    "ImageAddress",
    "ImageReadError",
    "NoImageError",
    "Slicing",
    "Window",
    "dicom_facts",
    "irregular",
    "list_folder",
    "list_pictures",
    "read_pixels",
    "readable",
    "require_file",
]
