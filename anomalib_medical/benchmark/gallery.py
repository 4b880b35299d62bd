"""Pictures of the highest and the lowest scores of each class: image, heatmap and mask side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalib_medical.benchmark.files import atomic
from anomalib_medical.benchmark.records import GalleryEntry
from anomalib_medical.benchmark.run_folder import JobFolder
from anomalib_medical.benchmark.scoring import Scored
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.edge.geometry import WHOLE
from anomalib_medical.edge.heatmap import Scale, draw_map, place_mask, side_by_side, to_picture, with_legend
from anomalib_medical.edge.manifest import Calibration

_SIDE = 256


def write_gallery(
    folder: JobFolder,
    data: MedicalDataset,
    scored: Scored,
    path_hashes: Sequence[str],
    labels: NDArray[np.bool_],
    k: int,
    threshold: float | None = None,
) -> list[GalleryEntry]:
    """Write pictures of the k highest and k lowest scores of both classes; none without maps.

    ``threshold`` is the raw value above which a pixel is abnormal.
    """
    if scored.maps is None or k == 0:
        return []
    rows = {path: row for row, path in enumerate(data.samples.image_path.astype(str))}
    # The same colours in all pictures: from the test set's median, without a threshold to nearly its largest value.
    low, high = np.quantile(scored.maps[:, ::4, ::4], [0.5, 0.999])
    calibration = Calibration(threshold=threshold, minimum=float(low), limit=threshold)
    scale = Scale.of(np.asarray([low, high], np.float32), calibration, "none")
    entries = []
    for place, index in _chosen(scored.scores, labels, k):
        item = data[rows[scored.paths[index]]]
        mask = None if scored.masks is None else scored.masks[index]
        picture = _picture(np.asarray(item.image, dtype=np.float32), scored.maps[index], mask, scale)
        file = f"{path_hashes[index]}.png"
        with atomic(folder.path / "gallery" / file, "wb") as stream:
            picture.save(stream, "PNG")
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
    image: NDArray[np.float32], values: NDArray[np.float32], mask: NDArray[np.bool_] | None, scale: Scale
) -> Image.Image:
    """Image, map on it and mask."""
    heat = to_picture(image.clip(0, 1), _SIDE, _SIDE)
    tiles = [heat.copy(), heat]
    draw_map(heat, values, scale, WHOLE, None if scale.threshold is None else values > scale.threshold)
    if mask is not None:
        tiles.append(Image.fromarray(place_mask(mask, WHOLE, (heat.height, heat.width))).convert("RGB"))
    return with_legend(side_by_side(tiles), "", scale)
