"""Reading pixels: any supported file becomes a float32 array in [0, 1].

Edge devices read with a copy of this folder: it imports itself relatively, and neither torch nor anomalib; without
nibabel, which is optional there, NIfTI files are refused.
"""

from .archive import STANDARD_INPUT, Archive, Part, Progress
from .dicom_file import is_dicom_file
from .dicom_header import OWN_MANUFACTURER, DicomFacts, dicom_facts, kind_of_file
from .errors import ArchiveError, ImageReadError, NoImageError
from .files import ImageAddress, first_free, irregular, numbered, on_disk, picture_sha256, sha256
from .listing import IMAGE_SUFFIXES, RASTER_SUFFIXES, Listing, has_image_name, image_stem, list_folder
from .masks import MaskRule, labels_in
from .options import NAMED_WINDOWS, Axis, Slicing, Window
from .pairing import pair_masks, require_same_size
from .reader import (
    FORMATS,
    ImageReader,
    holds_volume,
    image_size,
    is_image,
    list_pictures,
    read_mask_pixels,
    read_mask_values,
    read_pixels,
    require_file,
    three_planes,
)
from .resume import begin_part, locked, write_once
from .series import Series, SliceFacts, group_series, group_slices, series_key, slice_facts
from .text import agree, composed, counted, finite_or_none, names_nobody, normalise_id, readable

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "NAMED_WINDOWS",
    "OWN_MANUFACTURER",
    "RASTER_SUFFIXES",
    "STANDARD_INPUT",
    "Archive",
    "ArchiveError",
    "Axis",
    "DicomFacts",
    "ImageAddress",
    "ImageReadError",
    "ImageReader",
    "Listing",
    "MaskRule",
    "NoImageError",
    "Part",
    "Progress",
    "Series",
    "SliceFacts",
    "Slicing",
    "Window",
    "agree",
    "begin_part",
    "composed",
    "counted",
    "dicom_facts",
    "finite_or_none",
    "first_free",
    "group_series",
    "group_slices",
    "has_image_name",
    "holds_volume",
    "image_size",
    "image_stem",
    "irregular",
    "is_dicom_file",
    "is_image",
    "kind_of_file",
    "labels_in",
    "list_folder",
    "list_pictures",
    "locked",
    "names_nobody",
    "normalise_id",
    "numbered",
    "on_disk",
    "pair_masks",
    "picture_sha256",
    "read_mask_pixels",
    "read_mask_values",
    "read_pixels",
    "readable",
    "require_file",
    "require_same_size",
    "series_key",
    "sha256",
    "slice_facts",
    "three_planes",
    "write_once",
]
