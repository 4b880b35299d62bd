"""Few-shot episodes: each query comes with K normal images of its own task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
from pandas import DataFrame
from torch.utils.data import Sampler
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image

from anomalib_medical.data.batch import MedicalImageItem
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.images import read_image
from anomalib_medical.io import Window


class Episode(NamedTuple):
    """One query and its support."""

    query: int  # row of ``samples``
    support: tuple[int, ...]  # K distinct rows of ``pool``


class EpisodeDataset(MedicalDataset):
    """Queries of several tasks, and the pool that their supports come from.

    ``samples`` and ``pool`` have the column ``task`` beside those of `MedicalDataset`. Images are brought to
    ``image_size`` (height, width) where no augmentation resizes them.
    """

    def __init__(self, samples: DataFrame, image_size: tuple[int, int], window: Window | None = None) -> None:
        super().__init__(window=window)
        self.samples = samples
        self.pool = samples
        self.image_size = image_size

    def __getitem__(self, index: int | Episode) -> MedicalImageItem:
        """Read a query and, of an episode, its support (K, 3, H, W) and the support's rows in the pool."""
        if not isinstance(index, Episode):
            return super().__getitem__(index)
        item = super().__getitem__(index.query)
        item.image = self._resize(item.image)
        item.support = torch.stack([self._read_support(row) for row in index.support])
        item.support_index = torch.tensor(index.support)
        return item

    def _read_support(self, row: int) -> torch.Tensor:
        image = Image(read_image(self.pool.image_path.iloc[row], self.window))
        image = self._resize(self.augmentations(image) if self.augmentations else image)
        return cast("torch.Tensor", image.as_subclass(torch.Tensor))

    def _resize(self, image: Image) -> Image:
        """Bring images that the model's own Resize has not reached to one size."""
        if self.augmentations is not None:
            return image
        return cast("Image", Resize(self.image_size, antialias=False)(image))


class EpisodeSampler(Sampler[Episode]):
    """Draws an episode for every query: a support never holds it, nor, where enough others are left, its patient.

    With ``shuffle`` order and supports are drawn anew in every epoch; else both stay. ``seed`` decides both.
    """

    def __init__(self, data: EpisodeDataset, shots: int, seed: int, *, shuffle: bool) -> None:
        self.data = data
        self.shots = shots
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning does so."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Count the queries."""
        return len(self.data)

    def __iter__(self) -> Iterator[Episode]:
        """Draw the episodes of this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch if self.shuffle else 0])
        rows = rng.permutation(len(self.data)) if self.shuffle else np.arange(len(self.data))
        queries, pool = self.data.samples, self.data.pool
        paths = pool.image_path.to_numpy()
        patients = pool.patient_id.to_numpy()
        of_task = {task: np.flatnonzero(pool.task == task) for task in pool.task.unique()}
        for row in rows:
            query = queries.iloc[row]
            own = of_task[query.task]
            others = own[patients[own] != query.patient_id]
            if len(others) < self.shots:
                others = own[paths[own] != query.image_path]
            yield Episode(int(row), tuple(int(each) for each in rng.choice(others, self.shots, replace=False)))
