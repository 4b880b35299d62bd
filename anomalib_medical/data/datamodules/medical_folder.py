"""The user's own images in a folder tree."""

from __future__ import annotations

import re
from pathlib import Path

from torchvision.transforms.v2 import Transform

from anomalib_medical.data.datamodules.base import MedicalDataModule, ValidationSplit
from anomalib_medical.data.datasets.medical_folder import MedicalFolderDataset


class MedicalFolder(MedicalDataModule):
    """A folder with ``train/good`` and, optionally, ``test/good``, ``test/<class>`` and ``ground_truth/<class>``.

    The mask of ``test/<class>/a.jpg`` is ``ground_truth/<class>/a.png`` (or ``a_mask.png``). Abnormal images without a
    mask count for image metrics only. Without ``test/`` the data can be trained on, not tested.

    Args:
        root: The folder.
        name: Name of the dataset, used for result folders. Defaults to the folder's.
        train_batch_size: Images a training batch.
        eval_batch_size: Images a validation, test or predict batch.
        num_workers: Loading processes; None for up to four, one core left free.
        patient_pattern: Regular expression searched in each file's stem; its first group, or the whole match, is the
            patient. Without it every file is a patient of its own.
        val_split_mode: ``"from_train"`` holds out training normals, by patient; ``"from_test"`` and
            ``"same_as_test"`` let thresholds see labelled anomalies.
        val_split_ratio: Share of images to hold out. None: of the training images a tenth, but 20 where these are no
            more than a fifth; of the test images half.
        train_augmentations: Augmentations of training images.
        val_augmentations: Augmentations of validation images.
        test_augmentations: Augmentations of test images.
        augmentations: Augmentations where the three above are not given.
        seed: Decides which patients are held out.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        train_batch_size: int = 16,
        eval_batch_size: int = 16,
        num_workers: int | None = None,
        patient_pattern: str | None = None,
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
            seed=seed,
        )
        try:
            re.compile(patient_pattern or "")
        except re.error as error:
            msg = f"patient_pattern={patient_pattern!r} is not a regular expression: {error}."
            raise ValueError(msg) from error
        self.root = Path(root)
        self._name = name or self.root.resolve().name
        self.patient_pattern = patient_pattern

    @property
    def name(self) -> str:  # type: ignore[override] # Lightning declares an attribute, anomalib makes it a property
        """Name of the dataset."""
        return self._name

    def _setup(self, _stage: str | None = None) -> None:
        everything = MedicalFolderDataset(self.root, self.name, patient_pattern=self.patient_pattern)
        self.train_data = everything.subsample(_rows(everything, "train"))
        test_rows = _rows(everything, "test")
        if test_rows:
            self.test_data = everything.subsample(test_rows)


def _rows(data: MedicalFolderDataset, split: str) -> list[int]:
    return [row for row, part in enumerate(data.samples.split) if part == split]
