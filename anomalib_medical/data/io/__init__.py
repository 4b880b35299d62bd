"""Reading pixels: any supported file becomes a float32 array in [0, 1].

Edge devices read with a copy of this folder: it imports itself relatively, and neither torch nor anomalib; without
nibabel, which is optional there, NIfTI files are refused.
"""

from .address import ImageAddress
from .dicom_header import DicomFacts, dicom_facts
from .errors import ImageReadError, NoImageError
from .listing import IMAGE_SUFFIXES, image_stem, list_images
from .reader import ImageReader, image_size, list_pictures, read_mask_pixels, read_pixels
from .slicing import Axis, Slicing
from .windows import NAMED_WINDOWS, Window
from .words import agree, counted

__all__ = [
    "IMAGE_SUFFIXES",
    "NAMED_WINDOWS",
    "Axis",
    "DicomFacts",
    "ImageAddress",
    "ImageReadError",
    "ImageReader",
    "NoImageError",
    "Slicing",
    "Window",
    "agree",
    "counted",
    "dicom_facts",
    "image_size",
    "image_stem",
    "list_images",
    "list_pictures",
    "read_mask_pixels",
    "read_pixels",
]
