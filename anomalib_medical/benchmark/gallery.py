"""Pictures of the highest and the lowest scores of each class: image, heatmap and mask side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_medical.benchmark.files import atomic
from anomalib_medical.benchmark.records import GalleryEntry
from anomalib_medical.benchmark.run_folder import JobFolder
from anomalib_medical.benchmark.scoring import Scored
from anomalib_medical.data.dataset import MedicalDataset


def write_gallery(
    folder: JobFolder,
    data: MedicalDataset,
    scored: Scored,
    path_hashes: Sequence[str],
    labels: NDArray[np.bool_],
    k: int,
) -> list[GalleryEntry]:
    """Write pictures of the k highest and k lowest scores of both classes; none without maps."""
    if scored.maps is None or k == 0:
        return []
    rows = {path: row for row, path in enumerate(data.samples.image_path.astype(str))}
    # The same colours in all pictures: from the median to nearly the largest value of the test set.
    low, high = np.quantile(scored.maps[:, ::4, ::4], [0.5, 0.999])
    entries = []
    for place, index in _chosen(scored.scores, labels, k):
        item = data[rows[scored.paths[index]]]
        mask = None if scored.masks is None else scored.masks[index]
        heat = ((scored.maps[index] - low) / max(high - low, 1e-12)).clip(0, 1)
        picture = _picture(np.asarray(item.image, dtype=np.float32), heat, mask)
        file = f"{path_hashes[index]}.png"
        with atomic(folder.path / "gallery" / file, "wb") as stream:
            stream.write(cv2.imencode(".png", picture)[1].tobytes())
        entries.append(GalleryEntry(path_hashes[index], file, place, int(labels[index]), float(scored.scores[index])))
    return entries


def _chosen(
    scores: NDArray[np.float32], labels: NDArray[np.bool_], k: int
) -> Iterator[tuple[Literal["highest", "lowest"], int]]:
    """Rows of the lowest and the highest scores of each class; none twice."""
    order = np.argsort(scores, kind="stable")
    for abnormal in (True, False):
        rows = order[labels[order] == abnormal]
        few = min(k, len(rows) // 2)
        for row in rows[:few]:
            yield "lowest", int(row)
        for row in rows[len(rows) - few :][::-1]:
            yield "highest", int(row)


def _picture(
    image: NDArray[np.float32], heat: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Image, heatmap over it and mask, (H, 3 W, 3) in OpenCV's blue, green, red."""
    height, width = heat.shape
    pixels = (image.transpose(1, 2, 0)[..., ::-1] * 255).clip(0, 255).astype(np.uint8)
    shown = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    coloured = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    panels = [shown, cv2.addWeighted(shown, 0.5, coloured, 0.5, 0)]
    if mask is not None:
        panels.append(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255)
    return np.hstack(panels).astype(np.uint8)
