"""Generated brain-like slices with lesions: no download, no licence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torchvision.transforms.v2 import Transform

from anomalib_medical.data.datamodule import MedicalDataModule, ValidationSplit
from anomalib_medical.data.phantom import PhantomSpec, ensure_phantom
from anomalib_medical.data.phantom.dataset import PhantomDataset


class Phantom(MedicalDataModule):
    """Brain-like slices made by a deterministic generator on first use.

    They are for learning the tools and for tests; results on them say nothing about patients.

    Args:
        root: Folder that the images are written to, in a subfolder for every setting.
        difficulty: ``"easy"`` lesions are large and strong, ``"hard"`` ones small and faint.
        image_size: Width and height in pixels, one number or twice the same (as anomalib's `get_datamodule` passes it).
        train_count: Normal training images, four slices a patient.
        test_normal_count: Normal test images, two slices a patient.
        test_abnormal_count: Test images with a lesion, two slices a patient.
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
        seed: Decides the images and which patients are held out.
    """

    def __init__(
        self,
        root: str | Path = "./datasets/Phantom",
        difficulty: Literal["easy", "medium", "hard"] = "medium",
        image_size: int | tuple[int, int] = 256,
        train_count: int = 200,
        test_normal_count: int = 50,
        test_abnormal_count: int = 50,
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
            seed=seed,
        )
        self.root = Path(root)
        self.spec = PhantomSpec(
            difficulty=difficulty,
            image_size=_side(image_size),
            seed=seed,
            train=train_count,
            test_normal=test_normal_count,
            test_abnormal=test_abnormal_count,
        )

    def prepare_data(self) -> None:
        """Make the images where they are missing or damaged."""
        ensure_phantom(self.root, self.spec)

    def _setup(self, _stage: str | None = None) -> None:
        # Without a trainer nobody calls prepare_data; where the images are there, this only checks them.
        folder = ensure_phantom(self.root, self.spec)
        self.train_data = PhantomDataset(folder, split="train")
        if self.spec.test_normal + self.spec.test_abnormal:
            self.test_data = PhantomDataset(folder, split="test")


def _side(image_size: int | tuple[int, int]) -> int:
    if isinstance(image_size, int):
        return image_size
    height, width = image_size
    if height != width:
        msg = f"image_size is {tuple(image_size)}, expected a square: phantoms are as high as wide."
        raise ValueError(msg)
    return int(height)
