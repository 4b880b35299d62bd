"""Reading pixels: any supported file becomes a float32 array in [0, 1].

Edge devices read with a copy of this folder: it imports itself relatively, and neither torch nor anomalib; without
nibabel, which is optional there, NIfTI files are refused.
"""

from .dicom_file import is_dicom_file
from .dicom_header import OWN_MANUFACTURER, DicomFacts, dicom_facts, kind_of_file
from .errors import ImageReadError, NoImageError
from .files import ImageAddress, irregular, on_disk, picture_sha256, sha256
from .listing import IMAGE_SUFFIXES, RASTER_SUFFIXES, Listing, image_stem, list_folder
from .masks import MaskRule, labels_in
from .options import NAMED_WINDOWS, Axis, Slicing, Window
from .pairing import pair_masks, require_same_size
from .reader import (
    FORMATS,
    ImageReader,
    image_size,
    list_pictures,
    read_mask_pixels,
    read_mask_values,
    read_pixels,
    require_file,
    three_planes,
)
from .text import agree, composed, counted, finite_or_none, names_nobody, normalise_id, readable

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "NAMED_WINDOWS",
    "OWN_MANUFACTURER",
    "RASTER_SUFFIXES",
    "Axis",
    "DicomFacts",
    "ImageAddress",
    "ImageReadError",
    "ImageReader",
    "Listing",
    "MaskRule",
    "NoImageError",
    "Slicing",
    "Window",
    "agree",
    "composed",
    "counted",
    "dicom_facts",
    "finite_or_none",
    "image_size",
    "image_stem",
    "irregular",
    "is_dicom_file",
    "kind_of_file",
    "labels_in",
    "list_folder",
    "list_pictures",
    "names_nobody",
    "normalise_id",
    "on_disk",
    "pair_masks",
    "picture_sha256",
    "read_mask_pixels",
    "read_mask_values",
    "read_pixels",
    "readable",
    "require_file",
    "require_same_size",
    "sha256",
    "three_planes",
]
