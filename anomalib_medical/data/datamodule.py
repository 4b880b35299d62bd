"""The datamodule that all ours share: leak-free splits and batches that keep their masks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
from anomalib.data import AnomalibDataModule, ImageBatch
from anomalib.data.utils import LabelName
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.batch import collate_masked
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.fingerprints import available_cores
from anomalib_medical.data.geometry import keeps_places_until_resize
from anomalib_medical.data.samples import (
    UNLABELED,
    automatic_holdout,
    concat_samples,
    hold_out_patients,
    without_labels,
)
from anomalib_medical.data.visualizer import with_our_reader
from anomalib_medical.io import Listing, Window, counted

logger = logging.getLogger(__name__)

ValidationSplit = Literal["from_train", "from_test", "same_as_test"]


class MedicalDataModule(AnomalibDataModule):
    """Base of our datamodules. A subclass sets ``train_data`` and ``test_data`` in ``_setup``.

    Args:
        train_batch_size: Images a training batch.
        eval_batch_size: Images a validation, test or predict batch.
        num_workers: Loading processes; None for up to four, one core left free.
        train_augmentations: Augmentations of training images.
        val_augmentations: Augmentations of validation images.
        test_augmentations: Augmentations of test images.
        augmentations: Augmentations where the three above are not given.
        val_split_mode: ``"from_train"`` holds out training normals, by patient. ``"from_test"`` takes a part of the
            test patients away from the test, ``"same_as_test"`` validates on the test set itself; with both, a
            threshold is fitted on labels that a hospital does not have.
        val_split_ratio: Share of images to hold out. None: of the training images a tenth, but 20 where these are no
            more than a fifth; of the test images half.
        window: Which values of DICOM and NIfTI files become black and white: a name (``bone``, ``brain``, ``lung``,
            ``soft_tissue``), [center, width], or None for what the file says.
        seed: Decides which patients are held out.
    """

    # The last two are not set where the data has no such part. Images of the unlabeled pool reach the training batches
    # of models that declare `uses_unlabeled = True`, and of no others.
    train_data: MedicalDataset
    val_data: MedicalDataset
    test_data: MedicalDataset
    unlabeled_data: MedicalDataset
    # What the folders hold and no part of the data does.
    left_out: Listing = Listing()
    # Whatever the model, a warning says if thresholds see test images: our models say it of other datamodules only.
    tells_what_validation_sees = True

    def __init__(
        self,
        train_batch_size: int = 16,
        eval_batch_size: int = 16,
        num_workers: int | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        val_split_mode: ValidationSplit = "from_train",
        val_split_ratio: float | None = None,
        window: str | tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        if val_split_mode not in get_args(ValidationSplit):
            msg = f"val_split_mode is {val_split_mode!r}, expected one of {', '.join(get_args(ValidationSplit))}."
            raise ValueError(msg)
        if val_split_ratio is not None and not 0 < val_split_ratio < 1:
            msg = f"val_split_ratio is {val_split_ratio}, expected a share between 0 and 1, or None for the default."
            raise ValueError(msg)
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=max(0, min(4, available_cores() - 1)) if num_workers is None else num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            test_split_mode="from_dir",
            seed=seed,
        )
        self.window = Window.of(window)
        # What pixels depend on beside the files, as plain values; checkpoints keep it, see `RunFiles`.
        self.reading: dict[str, Any] = {
            "window": [window.center, window.width] if isinstance(window, Window) else window
        }
        self._val_share = val_split_ratio
        self._split_seed = seed

    def setup(self, stage: str | None = None) -> None:
        """Set up the parts of the data, and forget whatever is known about unlabeled images."""
        super().setup(stage)
        if hasattr(self, "unlabeled_data"):
            self.unlabeled_data.samples = without_labels(self.unlabeled_data.samples)
        self._use_our_visualizer()

    def _set_parts(self, everything: MedicalDataset) -> None:
        """Set the parts that the column ``split`` names; a validation set may be empty, others are then not set."""
        for part in ("train", "val", "test", UNLABELED):
            rows = np.flatnonzero(everything.samples.split == part).tolist()
            if rows or part == "val":
                setattr(self, f"{part}_data", everything.subsample(rows))

    def _use_our_visualizer(self) -> None:
        """Let heatmaps be drawn on what our readers read, whatever the model."""
        model: Any = getattr(self.trainer, "lightning_module", None)
        theirs = getattr(model, "visualizer", None)
        ours = with_our_reader(theirs)
        if self.trainer is None or ours is theirs:
            return
        # The model hands it to the trainer anew in every stage.
        model.visualizer = ours
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined] # Lightning sets it dynamically
        callbacks[:] = [ours if callback is theirs else callback for callback in callbacks]

    def _update_augmentations(self) -> None:
        super()._update_augmentations()
        model: Any = getattr(self.trainer, "model", None)
        if not keeps_places_until_resize(getattr(getattr(model, "pre_processor", None), "transform", None)):
            # anomalib resizes in the dataset too, ahead of the model's padding or crop, which then work on another
            # image than in `predict` and in exported models.
            for name in ("train", "val", "test"):
                if hasattr(self, f"{name}_data"):
                    getattr(self, f"{name}_data").augmentations = getattr(self, f"{name}_augmentations")
        if hasattr(self, "unlabeled_data"):
            self.unlabeled_data.augmentations = self.train_data.augmentations

    def _create_test_split(self) -> None:
        """Keep the test set as it is: anomalib would fill a test without normals up with training images."""

    def _create_val_split(self) -> None:
        if self.val_split_mode == "from_train":
            self._hold_out_training_normals()
            return
        self._require_test(f"val_split_mode={self.val_split_mode.value}")
        if self.val_split_mode == "same_as_test":
            logger.warning("val_split_mode=same_as_test: thresholds fitted in validation have seen the test labels.")
            self.val_data = copy.deepcopy(self.test_data)
            return
        logger.warning(
            "val_split_mode=from_test: thresholds fitted in validation have seen labelled anomalies like the test's."
        )
        self._split_test_by_patient()

    def _hold_out_training_normals(self) -> None:
        patients = list(self.train_data.samples.patient_id)
        if len(set(patients)) < 2:
            several = len(patients) > 1
            advice = self._advice_for_one_patient() if several else ""
            other_way = "" if several else ", or set val_split_mode=same_as_test (the threshold then sees the test set)"
            msg = (
                f"Only {counted(len(patients), 'training image')} {'of one patient' if several else 'in all'}: none "
                f"can be held out for the threshold. {advice}Add normal images of another patient{other_way}."
            )
            raise ValueError(msg)
        share = self._val_share
        count = automatic_holdout(len(patients)) if share is None else max(1, round(len(patients) * share))
        held_out = hold_out_patients(patients, count, self._split_seed)
        self.train_data, self.val_data = _divide(self.train_data, held_out)
        if hasattr(self, "unlabeled_data"):
            # Whoever validates must not have been trained on either way.
            self.unlabeled_data, _ = _divide(self.unlabeled_data, held_out)
        images = counted(len(self.train_data), "image")
        logger.info("Training on %s, %d held out for validation.", images, len(self.val_data))

    def _advice_for_one_patient(self) -> str:
        """Say what else it may mean that all training images are of one patient."""
        return ""

    def _split_test_by_patient(self) -> None:
        """Divide patients with and without anomalies separately, so that both parts have both."""
        samples = self.test_data.samples
        is_ill = samples.groupby("patient_id").label_index.transform("max") == LabelName.ABNORMAL
        held_out: set[str] = set()
        for _, patients in samples.patient_id.groupby(is_ill):
            if patients.nunique() > 1:
                count = max(1, round(len(patients) * (self._val_share or 0.5)))
                held_out |= hold_out_patients(list(patients), count, self._split_seed)
        if not held_out:
            msg = (
                f"val_split_mode=from_test needs at least two test patients of a kind, found "
                f"{counted(len(samples), 'test image')} of fewer. Use val_split_mode=from_train."
            )
            raise ValueError(msg)
        self.test_data, self.val_data = _divide(self.test_data, held_out)

    def _require_test(self, what: str) -> None:
        if not len(getattr(self, "test_data", ())):
            msg = (
                f"{what} needs test images, and {self.name} has none: there is nothing in test/. Training alone works "
                "(`anomalib fit`); to score a folder of images without labels use `anomalib predict --data <folder>`."
            )
            raise ValueError(msg)

    def train_dataloader(self) -> DataLoader[Any]:
        """Load the known normals, together with the unlabeled pool if the model uses it."""
        data = self.train_data
        if hasattr(self, "unlabeled_data"):
            model = getattr(self.trainer, "lightning_module", None)
            if getattr(model, "uses_unlabeled", False):
                data = copy.copy(self.train_data)
                data.samples = concat_samples(self.train_data.samples, self.unlabeled_data.samples)
            else:
                logger.info(
                    "Left out %s: %s learns from known normals only.",
                    counted(len(self.unlabeled_data), "unlabeled image"),
                    type(model).__name__,
                )
        return DataLoader(
            dataset=data,
            shuffle=True,
            batch_size=self.train_batch_size,
            num_workers=self.num_workers,
            collate_fn=self._collate_fn(data),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation set."""
        return self._eval_dataloader(self.val_data)

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the test set, as predict does; a ValueError if there is none."""
        self._require_test("Testing or predicting")
        return self._eval_dataloader(self.test_data)

    def _eval_dataloader(self, data: MedicalDataset) -> DataLoader[Any]:
        has_mask = data.has_mask
        batches: dict[str, Any] = {"batch_size": self.eval_batch_size}
        if any(has_mask) and not all(has_mask):
            ordered = SequentialSampler(data)
            unmixed = _UnmixedBatchSampler(ordered, self.eval_batch_size, drop_last=False, kinds=has_mask)
            batches = {"batch_sampler": unmixed}
        return DataLoader(data, num_workers=self.num_workers, collate_fn=self._collate_fn(data), **batches)

    def _collate_fn(self, data: MedicalDataset) -> Callable[[list[Any]], Any]:
        function: Any = self.external_collate_fn
        # anomalib's tiled ensembles cut tiles out of its own batches, which have no place for our fields.
        if getattr(function, "default_collate_fn", None) == ImageBatch.collate:
            function.default_collate_fn = collate_masked
        return function or data.collate_fn


class _UnmixedBatchSampler(BatchSampler):
    """Puts images with and without a mask in different batches: a batch has a mask for every image or for none."""

    def __init__(self, sampler: Sampler[int], batch_size: int, drop_last: bool, kinds: Sequence[bool]) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.kinds = kinds
        # Several processes take turns in this order, so that what they score, put together, is in that of one process.
        self._order = sorted(range(len(kinds)), key=lambda index: not kinds[index])

    def __iter__(self) -> Iterator[list[int]]:
        indices = [self._order[place] for place in self.sampler]
        for kind in (True, False):
            group = [index for index in indices if self.kinds[index] == kind]
            yield from (group[start : start + self.batch_size] for start in range(0, len(group), self.batch_size))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _divide(data: MedicalDataset, held_out: set[str]) -> tuple[MedicalDataset, MedicalDataset]:
    """Divide a dataset into the patients that stay and those held out."""
    outside = data.samples.patient_id.isin(held_out).to_numpy()
    return data.subsample(np.flatnonzero(~outside).tolist()), data.subsample(np.flatnonzero(outside).tolist())
