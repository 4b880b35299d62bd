"""Images and masks as tensors, read by ``io``, which knows no torch: edge devices read with the same code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from anomalib_medical.io import ImageAddress, MaskRule, Window, read_mask_pixels, read_pixels, three_planes


def read_image(
    path: str | Path | ImageAddress,
    window: str | Sequence[float] | Window | None = None,
    *,
    channels_last: bool = False,
) -> torch.Tensor:
    """Read an image as ``read_pixels`` does; grey images are repeated over the three channels.

    Args:
        path: Image file, or the address of one picture in it, such as ``brain.nii.gz#axial=57``.
        window: Which values of DICOM and NIfTI files become black and white: a name (``bone``, ``brain``, ``lung``,
            ``soft_tissue``), (center, width), or None for the file's own. Other formats have no units to apply it to.
        channels_last: Whether each pixel's three values lie together in memory, behind the same shape: colour files
            then need no copy, and resizing without antialiasing takes half the time.

    Returns:
        float32 tensor in [0, 1] of shape (3, H, W).

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read, or it holds several pictures and the address names none.
    """
    pixels = read_pixels(path, window)
    if not channels_last:
        return torch.from_numpy(three_planes(pixels))
    colours = torch.from_numpy(pixels)
    return (colours[..., None].repeat(1, 1, 3) if colours.ndim == 2 else colours).permute(2, 0, 1)


def read_mask(
    path: str | Path | ImageAddress, rule: MaskRule | None = None, image: str | Path | ImageAddress | None = None
) -> torch.Tensor:
    """Read a mask as ``read_mask_pixels`` does, with the same arguments and errors.

    Returns:
        uint8 tensor of zeros and ones of shape (H, W).
    """
    return torch.from_numpy(read_mask_pixels(path, rule, image)).to(torch.uint8)
