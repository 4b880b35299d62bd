"""The maps of a NIfTI volume, as files in its own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..io import ImageAddress, image_size
from .geometry import put_back
from .heatmap import place_mask
from .predictor import Prediction


def volume_maps(
    path: Path, addresses: Sequence[ImageAddress], predictions: Sequence[Prediction]
) -> Iterator[tuple[str, bytes]]:
    """Make the files of a volume: ``map.nii.gz`` and, with a threshold of the map, ``mask.nii.gz``, each with its name.

    The map is float32, normalised as scores are, brought to the size of each slice; the mask is uint8, 1 above the
    threshold. Both are 0 where nothing was scored: in slices outside the range, and in what pre-processing cuts off.
    """
    from ..io.nifti_maps import VolumeMap  # nibabel is optional, and there where a volume was read

    if any(each.anomaly_map is None for each in predictions):
        return
    size = image_size(addresses[0])
    bilinear, placed = Image.Resampling.BILINEAR, list(zip(addresses, predictions, strict=True))
    values = VolumeMap(path, np.float32)
    for address, each in placed:
        if each.anomaly_map is not None:
            scores: NDArray[np.float32] = put_back(each.anomaly_map, each.placed, size, bilinear)
            values.put(address, scores)
    yield f"map{values.suffix}", values.content()
    if any(each.mask is None for each in predictions):
        return
    marked = VolumeMap(path, np.uint8)
    for address, each in placed:
        if each.mask is not None:
            marked.put(address, place_mask(each.mask, each.placed, size))
    yield f"mask{marked.suffix}", marked.content()
