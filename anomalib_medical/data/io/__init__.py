"""Reading pixels: any supported file becomes a float32 tensor in [0, 1]."""

from anomalib_medical.data.io.errors import ImageReadError
from anomalib_medical.data.io.listing import list_images
from anomalib_medical.data.io.reader import IMAGE_SUFFIXES, ImageReader, image_size, read_image, read_mask

__all__ = ["IMAGE_SUFFIXES", "ImageReadError", "ImageReader", "image_size", "list_images", "read_image", "read_mask"]
