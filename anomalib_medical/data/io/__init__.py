"""Reading pixels: any supported file becomes a float32 tensor in [0, 1]."""

from anomalib_medical.data.io.address import ImageAddress
from anomalib_medical.data.io.errors import ImageReadError, NoImageError
from anomalib_medical.data.io.listing import IMAGE_SUFFIXES, image_stem, list_images
from anomalib_medical.data.io.reader import ImageReader, image_size, list_pictures, read_image, read_mask
from anomalib_medical.data.io.slicing import Axis, Slicing
from anomalib_medical.data.io.windows import NAMED_WINDOWS, Window

__all__ = [
    "IMAGE_SUFFIXES",
    "NAMED_WINDOWS",
    "Axis",
    "ImageAddress",
    "ImageReadError",
    "ImageReader",
    "NoImageError",
    "Slicing",
    "Window",
    "image_size",
    "image_stem",
    "list_images",
    "list_pictures",
    "read_image",
    "read_mask",
]
