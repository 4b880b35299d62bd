"""The base of datamodules of published datasets.

How to add one:

1. ``datasets/<name>.py``: a `DatasetSource`, the papers' `PublishedCounts`, a function that says which layout a root
   has (None if none), and ``make_<name>_dataset(root, protocol=..., deduplicate=..., seed=...)``, which lists the
   images with the split that the files give (``""`` if they give none) and returns `apply_protocol(...)` of them.
   Where no layout is found it raises ``SOURCE.not_found(root)``.
2. ``datamodules/<name>.py``: a subclass with ``source``, `_is_there` and `_make_samples`.

Checks on CSV files are in ``datasets/checks.py``, the ``images/`` and ``data.json`` layout is read by
``datasets/data_json.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, get_args

from pandas import DataFrame
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.datamodule import MedicalDataModule, ValidationSplit
from anomalib_medical.data.download import fetch, is_interrupted
from anomalib_medical.data.pool import compose_pool
from anomalib_medical.data.published.dataset import Protocol, PublishedDataset
from anomalib_medical.data.published.source import DatasetSource
from anomalib_medical.data.samples import UNLABELED, take_left_out
from anomalib_medical.io import counted


class PublishedDataModule(MedicalDataModule, ABC):
    """Base of datamodules of published datasets.

    Args:
        root: The dataset's folder, ``./datasets/<class name>`` if None.
        protocol: ``"clean"``: patient-disjoint and deduplicated; what is dropped is logged. ``"published"``: the
            papers' images exactly, an error if they are not there.
        deduplicate: Whether ``"clean"`` takes near-duplicates as one patient, and keeps copies once; None
            for what the dataset needs.
        unlabeled_count: Images of the unlabeled pool, None for all there are.
        unlabeled_anomaly_rate: Share of abnormal images in the unlabeled pool, for ablations; None for what comes.
        window: Which values of DICOM files become black and white: a name (``bone``, ``brain``, ``lung``,
            ``soft_tissue``), [center, width], or None for what the file says.
        download: Whether to download the dataset where it is missing and its source needs no account. Setting it
            accepts the source's licence.
        train_batch_size: Images a training batch.
        eval_batch_size: Images a validation, test or predict batch.
        num_workers: Loading processes; None for up to four, one core left free.
        val_split_mode: ``"from_train"`` holds out training normals, by patient; ``"from_test"`` and
            ``"same_as_test"`` let thresholds see labelled anomalies.
        val_split_ratio: Share of images to hold out. None: of the training images a tenth, but 20 where these are no
            more than a fifth; of the test images half.
        train_augmentations: Augmentations of training images.
        val_augmentations: Augmentations of validation images.
        test_augmentations: Augmentations of test images.
        augmentations: Augmentations where the three above are not given.
        seed: Decides which patients are held out, and the split where the files have none.
    """

    source: ClassVar[DatasetSource]
    deduplicate_by_default: ClassVar[bool] = False

    def __init__(
        self,
        root: str | Path | None = None,
        protocol: Protocol = "clean",
        deduplicate: bool | None = None,
        unlabeled_count: int | None = None,
        unlabeled_anomaly_rate: float | None = None,
        window: str | tuple[float, float] | None = None,
        download: bool = False,
        train_batch_size: int = 16,
        eval_batch_size: int = 16,
        num_workers: int | None = None,
        val_split_mode: ValidationSplit = "from_train",
        val_split_ratio: float | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            window=window,
            seed=seed,
        )
        if protocol not in get_args(Protocol):
            msg = f"protocol is {protocol!r}, expected one of {', '.join(get_args(Protocol))}."
            raise ValueError(msg)
        if unlabeled_count is not None and unlabeled_count < 0:
            msg = f"unlabeled_count is {unlabeled_count}, expected 0 or more, or None for all there are."
            raise ValueError(msg)
        if unlabeled_anomaly_rate is not None and not 0 <= unlabeled_anomaly_rate <= 1:
            msg = f"unlabeled_anomaly_rate is {unlabeled_anomaly_rate}, expected a share in [0, 1], or None."
            raise ValueError(msg)
        self.root = Path("datasets", type(self).__name__) if root is None else Path(root)
        self.protocol = protocol
        self.deduplicate = self.deduplicate_by_default if deduplicate is None else deduplicate
        self.unlabeled_count = unlabeled_count
        self.unlabeled_anomaly_rate = unlabeled_anomaly_rate
        self.download = download

    @abstractmethod
    def _is_there(self) -> bool:
        """Whether the root has one of the layouts that are understood."""

    @abstractmethod
    def _make_samples(self) -> DataFrame:
        """Return the table of all images, as ``make_<name>_dataset`` does."""

    def prepare_data(self) -> None:
        """Download the dataset where that is wanted and possible.

        Raises:
            DatasetNotFoundError: If it is not in the root.
            DownloadError: If the download fails.
        """
        archives = self.source.archives if self.download else ()
        if archives and (not self._is_there() or is_interrupted(archives, self.root)):
            fetch(archives, self.root)
        if not self._is_there():
            raise self.source.not_found(self.root)

    def _setup(self, _stage: str | None = None) -> None:
        samples = self._make_samples()
        self.left_out = take_left_out(samples)
        if not (samples.split == "train").any():
            msg = (
                f"{self.name} in {self.root} leaves no normal image for training, of {counted(len(samples), 'image')} "
                "in all. Complete the data; with protocol=clean, images whose patient is in the test were dropped (see "
                "the log)."
            )
            raise ValueError(msg)
        self.train_data = self._dataset(samples[samples.split == "train"])
        if (samples.split == "test").any():
            self.test_data = self._dataset(samples[samples.split == "test"])
        pool = samples[samples.split == UNLABELED]
        if self.unlabeled_count is not None or self.unlabeled_anomaly_rate is not None:
            pool = compose_pool(pool, self.unlabeled_count, self.unlabeled_anomaly_rate, self._split_seed)
        if len(pool):
            self.unlabeled_data = self._dataset(pool)

    def _dataset(self, samples: DataFrame) -> PublishedDataset:
        return PublishedDataset(samples.reset_index(drop=True), self.name, window=self.window)
