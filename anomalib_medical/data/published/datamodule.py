"""The base of datamodules of published datasets.

One file a dataset. It holds a `PublishedSet`, which describes the dataset; ``make_<name>_dataset``, which lists the
images with the split that the files give (``""`` if they give none) and returns `apply_protocol` of them; and the
datamodule, a subclass with ``about`` and `_make_samples`. Its class path stands in ``registration.py``.

Checks on CSV files are in ``data/checks.py``; folders of classes, tables of names and ``data.json`` are read by
``layouts.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pandas import DataFrame

from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.download import fetch, is_interrupted
from anomalib_medical.data.pool import compose_pool
from anomalib_medical.data.published.dataset import Protocol, PublishedSet, require_protocol
from anomalib_medical.data.samples import UNLABELED, take_left_out
from anomalib_medical.io import counted


class PublishedDataModule(MedicalDataModule, ABC):
    """Base of datamodules of published datasets."""

    about: ClassVar[PublishedSet]
    deduplicate_by_default: ClassVar[bool] = False

    def __init__(
        self,
        root: str | Path | None = None,
        protocol: Protocol = "clean",
        deduplicate: bool | None = None,
        unlabeled_count: int | None = None,
        unlabeled_anomaly_rate: float | None = None,
        download: bool = False,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        """Take the dataset's folder and how to read it.

        Said here and not of the class: what a subclass inherits, the command line's help shows of its parameters.

        Args:
            root: The dataset's folder, ``./datasets/<class name>`` if None.
            protocol: ``"clean"``: patient-disjoint and deduplicated; what is dropped is logged. ``"published"``: the
                papers' images exactly, an error if they are not there.
            deduplicate: Whether ``"clean"`` takes near-duplicates as one patient, and keeps copies once; None
                for what the dataset needs.
            unlabeled_count: Images of the unlabeled pool, None for all there are.
            unlabeled_anomaly_rate: Share of abnormal images in the unlabeled pool, for ablations; None for what comes.
            download: Whether to download the dataset where it is missing and its source needs no account. Setting it
                accepts the source's licence.
            kwargs: As `MedicalDataModule` has them; ``seed`` also decides the split where the files have none.
        """
        super().__init__(**kwargs)
        require_protocol(protocol)
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
    def _make_samples(self) -> DataFrame:
        """Return the table of all images, as ``make_<name>_dataset`` does."""

    def prepare_data(self) -> None:
        """Download the dataset where that is wanted and possible.

        Raises:
            FileNotFoundError: If it is not in the root.
            MedicalError: If the download fails.
        """
        archives = self.about.archives if self.download else ()
        if archives and (not self.about.is_in(self.root) or is_interrupted(archives, self.root)):
            fetch(archives, self.root)
        if not self.about.is_in(self.root):
            raise self.about.not_found(self.root)

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
        if self.unlabeled_count is not None or self.unlabeled_anomaly_rate is not None:
            pool = samples[samples.split == UNLABELED]
            pool = compose_pool(pool, self.unlabeled_count, self.unlabeled_anomaly_rate, self._split_seed)
            samples = samples[(samples.split != UNLABELED) | samples.index.isin(pool.index)]
        self._set_parts(MedicalDataset(samples, self.name, window=self.window))
