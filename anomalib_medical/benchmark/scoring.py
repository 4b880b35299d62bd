"""What a trained model says about a set of images: raw scores, maps, masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical.benchmark.records import PixelResult
from anomalib_medical.benchmark.run_folder import BLUR_COLUMNS
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.data.samples import METADATA
from anomalib_medical.errors import MedicalError
from anomalib_medical.metrics import bin_pixels

_SIGMA = 4.0
_BATCH = 16


class ScoresError(MedicalError):
    """Scores are no numbers."""


@dataclass
class Scored:
    """Raw scores of N images; maps and masks at the map's size, None where model or data have none.

    Attributes:
        paths: As the data gives them.
        scores: ``(N,)``.
        maps: ``(N, H, W)``.
        masks: ``(N, H, W)``.
    """

    paths: list[str] = field(default_factory=list)
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    maps: NDArray[np.float32] | None = None
    masks: NDArray[np.bool_] | None = None


class ScoreCollector(Callback):
    """Takes raw scores and maps in a test, before the post-processor replaces them.

    Give it to the trainer, not the model: the trainer's callbacks come before the model's own.
    """

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._scores: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._masks: list[Tensor] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the set before."""
        del trainer, pl_module
        self._paths, self._scores, self._maps, self._masks = [], [], [], []

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
        scores = torch.cat(self._scores)
        same_size = len({each.shape[1:] for each in self._maps}) == 1
        maps = torch.cat(self._maps).numpy() if same_size else None
        complete = maps is not None and sum(map(len, self._masks)) == len(maps)
        return Scored(
            paths=self._paths,
            scores=scores.numpy(),
            maps=maps,
            masks=torch.cat(self._masks).numpy() if complete else None,
        )


def score_table(
    data: MedicalDataset, scored: Scored, split: str, hasher: PatientHasher, root: str | None = None
) -> DataFrame:
    """Put scores beside what the data says of the images, names and patients hashed.

    Args:
        data: The dataset that was scored.
        scored: Its scores, in any order, which is kept.
        split: ``val`` or ``test``.
        hasher: Of the run folder.
        root: Folder of the data: hashes are of paths below it, so that data may be moved.
    """
    samples = data.samples.set_index(data.samples.image_path.astype(str)).loc[scored.paths]
    metadata = [column for column in map(str, samples) if column.startswith(METADATA)]
    prefix = "" if root is None else f"{root.rstrip('/')}/"
    table = {
        "path_hash": [f"i{hasher.hash(path.removeprefix(prefix))[1:]}" for path in scored.paths],
        "patient_hash": [hasher.hash(str(patient)) for patient in samples.patient_id],
        "split": split,
        "label": samples.label_index.astype(int).to_numpy(),
        "class_name": samples.label.astype(str).to_numpy() if "label" in samples else "",
        "raw_score": scored.scores,
    }
    return DataFrame(table | {name: samples[name].fillna("").astype(str).to_numpy() for name in metadata})


def join_scores(held_out: DataFrame, test: DataFrame) -> DataFrame:
    """One table of both."""
    return pd.concat([held_out, test], ignore_index=True)


def check_numbers(scored: Scored, name: str) -> None:
    """Refuse scores that no metric can rank.

    Raises:
        ScoresError: If a score or a value of a map is NaN or infinite.
    """
    maps = {} if scored.maps is None else {"anomaly maps": scored.maps.reshape(len(scored.maps), -1)}
    for what, values in ({"scores": scored.scores[:, None]} | maps).items():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        if bad:
            msg = (
                f"{what} are NaN or infinite: {bad} of {len(values)} of the {name} images. The training has run away "
                "(a lower learning rate may hold it), or the images hold values that are no numbers."
            )
            raise ScoresError(msg)


def pixel_result(scored: Scored, abnormal: NDArray[np.bool_], threshold: float) -> PixelResult | None:
    """Count pixels; None without maps, or where an abnormal image has no mask.

    Args:
        scored: Maps and masks of the test set.
        abnormal: Which images are abnormal.
        threshold: Map value above which a pixel is marked, or nan.
    """
    if scored.maps is None or scored.masks is None or not abnormal.any():
        return None
    if not scored.masks[abnormal].any(axis=(1, 2)).all():
        return None
    marked = scored.maps > threshold
    sums = [
        np.count_nonzero(both, axis=(1, 2)).astype(np.float64)
        for both in (marked & scored.masks, marked & ~scored.masks, ~marked & scored.masks)
    ]
    if np.isnan(threshold):
        sums = [np.full(len(abnormal), np.nan)] * 3
    return PixelResult(bin_pixels(scored.maps, scored.masks), *sums)


def fault_scores(scored: Scored, class_names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Blur maps as published code does: over the batch axis too, with batches in class order; and over each map alone.

    Args:
        scored: Maps of the test set.
        class_names: Of each image.
    """
    if scored.maps is None:
        return {}
    order = np.lexsort((scored.paths, class_names))
    mixed = np.empty(len(order), np.float32)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        mixed[rows] = gaussian_filter(scored.maps[rows], sigma=_SIGMA).max(axis=(1, 2))
    alone = np.array([gaussian_filter(each, sigma=_SIGMA).max() for each in scored.maps], np.float32)
    return dict(zip(BLUR_COLUMNS, (mixed, alone), strict=True))
