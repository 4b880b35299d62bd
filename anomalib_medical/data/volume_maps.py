"""Maps and masks of NIfTI volumes, put together from those of their slices as these are predicted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medical.io import ImageAddress, holds_volume
from anomalib_medical.io.nifti_maps import VolumeMap


class _Volume(NamedTuple):
    """A volume that slices are missing of."""

    target: Path
    values: VolumeMap
    marked: VolumeMap
    seen: list[int]  # how many slices, and how many of them with a mask


class VolumeWriter:
    """Writes ``NAME_map.nii.gz`` (float32) and ``NAME_mask.nii.gz`` (uint8) in the grid of each volume.

    A volume is written when its last slice has come, as the dataset's list of images tells, or at the end; what was
    not predicted of it is 0.

    Args:
        dataset: What is predicted.
    """

    def __init__(self, dataset: object) -> None:
        samples: Any = getattr(dataset, "samples", None)
        listed = getattr(dataset, "addresses", ()) if samples is None else samples.image_path
        self._wanted = Counter(ImageAddress.parse(address).path for address in listed)
        self._open: dict[Path, _Volume] = {}

    def wants(self, address: ImageAddress) -> bool:
        """Whether a picture is a slice of a volume."""
        return address.path in self._open or holds_volume(address.path)

    def add(self, address: ImageAddress, target: Path, values: NDArray[np.float32], mask: NDArray[Any] | None) -> None:
        """Lay a slice's map and mask, (H, W) as the slice was read, into its volume, to be written to `target`_map."""
        path = address.path
        if path not in self._wanted and path not in self._open:
            # Nobody knows how many come: those of a file come one after another.
            self.finish()
        if path not in self._open:
            self._open[path] = _Volume(target, VolumeMap(path, np.float32), VolumeMap(path, np.uint8), [0, 0])
        volume = self._open[path]
        volume.values.put(address, values)
        if mask is not None:
            volume.marked.put(address, mask)
        volume.seen[0] += 1
        volume.seen[1] += mask is not None
        if volume.seen[0] == self._wanted[path]:
            self._write(self._open.pop(path))

    def finish(self) -> None:
        """Write what is begun."""
        while self._open:
            self._write(self._open.popitem()[1])

    @staticmethod
    def _write(volume: _Volume) -> None:
        target = volume.target
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name(f"{target.name}_map{volume.values.suffix}").write_bytes(volume.values.content())
        # Without a threshold of the map nothing is marked, which is not the same as nothing found.
        if volume.seen[1] == volume.seen[0]:
            target.with_name(f"{target.name}_mask{volume.marked.suffix}").write_bytes(volume.marked.content())
