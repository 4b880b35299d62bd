"""What a trained model says about a set of images: raw scores, maps, masks, and the table and counts made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical.benchmark.records import PixelResult
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.data.samples import METADATA
from anomalib_medical.errors import MedicalError
from anomalib_medical.metrics import bin_pixels

# Of the blur that published code does: sigma in pixels of the map, images a batch.
_SIGMA = 4.0
_BATCH = 16


@dataclass
class Scored:
    """Raw scores of N images; maps and masks at the masks' size, None where model or data have none."""

    paths: list[str]
    scores: NDArray[np.float32]  # (N,)
    maps: NDArray[np.float32] | None = None  # (N, H, W)
    masks: NDArray[np.bool_] | None = None  # (N, H, W)


class ScoreCollector(Callback):
    """Takes raw scores and maps in a test, before the post-processor replaces them.

    Give it to the trainer, not the model: the trainer's callbacks come before the model's own.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the set before."""
        del trainer, pl_module
        self._paths: list[str] = []
        self._scores: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._masks: list[Tensor] = []

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: object) -> None:  # noqa: ANN401 - Lightning's
        """Take a batch's."""
        del trainer, pl_module, args
        self._paths += [str(path) for path in outputs.image_path]
        self._scores.append(outputs.pred_score.detach().float().cpu().flatten().clone())
        if outputs.anomaly_map is None:
            return
        maps = outputs.anomaly_map.detach().float().cpu()
        maps = maps.reshape(len(maps), 1, *maps.shape[-2:])
        if outputs.gt_mask is not None:
            masks = outputs.gt_mask.detach().cpu().bool()
            if maps.shape[-2:] != masks.shape[-2:]:
                maps = F.interpolate(maps, masks.shape[-2:], mode="bilinear")
            self._masks.append(masks.reshape(len(maps), *masks.shape[-2:]).clone())
        self._maps.append(maps[:, 0].clone())

    def scored(self) -> Scored:
        """Return all that was taken."""
        same_size = len({each.shape[1:] for each in self._maps}) == 1
        maps = torch.cat(self._maps).numpy() if same_size else None
        complete = maps is not None and sum(map(len, self._masks)) == len(maps)
        masks = torch.cat(self._masks).numpy() if complete else None
        return Scored(self._paths, torch.cat(self._scores).numpy(), maps, masks)


def score_table(
    data: MedicalDataset, scored: Scored, split: str, hasher: PatientHasher, root: str | None = None
) -> DataFrame:
    """Put scores, in their order, beside what the data says of the images, names and patients hashed.

    Hashes are of paths below ``root``, the folder of the data, so that it may be moved.
    """
    samples = data.samples.set_index(data.samples.image_path.astype(str)).loc[scored.paths]
    prefix = "" if root is None else f"{root.rstrip('/')}/"
    table = {
        "path_hash": [hasher.hash(path.removeprefix(prefix), "i") for path in scored.paths],
        "patient_hash": [hasher.hash(str(patient)) for patient in samples.patient_id],
        "split": split,
        "label": samples.label_index.astype(int).to_numpy(),
        "class_name": samples.label.astype(str).to_numpy() if "label" in samples else "",
        "raw_score": scored.scores,
    }
    if "series_id" in samples and (samples.series_id != "").any():
        table["series_hash"] = [hasher.hash(series, "s") for series in samples.series_id]
    metadata = [column for column in map(str, samples) if column.startswith(METADATA)]
    return DataFrame(table | {name: samples[name].fillna("").astype(str).to_numpy() for name in metadata})


def fault_scores(scored: Scored, class_names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Maxima of blurred maps: as published code does, over batches in class order too, and each alone; {} without."""
    if scored.maps is None:
        return {}
    order = np.lexsort((scored.paths, class_names))
    mixed = np.empty(len(order), np.float32)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        mixed[rows] = gaussian_filter(scored.maps[rows], sigma=_SIGMA).max(axis=(1, 2))
    alone = np.array([gaussian_filter(each, sigma=_SIGMA).max() for each in scored.maps], np.float32)
    return {"batch_blur": mixed, "image_blur": alone}


def check_numbers(scored: Scored, name: str) -> None:
    """Refuse scores that no metric can rank.

    Raises:
        MedicalError: If a score or a value of a map is NaN or infinite.
    """
    for what, values in (("scores", scored.scores), ("anomaly maps", scored.maps)):
        bad = 0 if values is None else sum(not np.isfinite(each).all() for each in values)
        if bad:
            msg = (
                f"{what} are NaN or infinite: {bad} of {len(scored.scores)} of the {name} images. The training has run "
                "away (a lower learning rate may hold it), or the images hold values that are no numbers."
            )
            raise MedicalError(msg)


def pixel_result(scored: Scored, abnormal: NDArray[np.bool_], threshold: float | None) -> PixelResult | None:
    """Count pixels in score bins and above a threshold; None without maps, or where an abnormal image has no mask."""
    if scored.maps is None or scored.masks is None or not abnormal.any():
        return None
    if not scored.masks[abnormal].any(axis=(1, 2)).all():
        return None
    sums = [np.full(len(abnormal), np.nan)] * 3
    if threshold is not None:
        marked = scored.maps > threshold
        kinds = (marked & scored.masks, marked & ~scored.masks, ~marked & scored.masks)
        sums = [np.count_nonzero(kind, axis=(1, 2)).astype(np.float64) for kind in kinds]
    return PixelResult(bin_pixels(scored.maps, scored.masks), *sums)
