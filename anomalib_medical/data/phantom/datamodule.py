"""Generated brain-like slices with lesions: no download, no licence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pandas import DataFrame

from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.phantom import PhantomSpec, ensure_phantom, read_manifest


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
        seed: Decides the images and which patients are held out.
        kwargs: As `MedicalDataModule` has them, without ``window``.
    """

    def __init__(
        self,
        root: str | Path = "./datasets/Phantom",
        difficulty: Literal["easy", "medium", "hard"] = "medium",
        image_size: int | tuple[int, int] = 256,
        train_count: int = 200,
        test_normal_count: int = 50,
        test_abnormal_count: int = 50,
        seed: int = 0,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(window=None, seed=seed, **kwargs)
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
        self._set_parts(MedicalDataset(make_phantom_dataset(ensure_phantom(self.root, self.spec)), self.name))


def make_phantom_dataset(folder: str | Path) -> DataFrame:
    """List the images of a phantom from its manifest, so that files put beside them by others change nothing.

    Args:
        folder: What ``ensure_phantom`` returned.

    Returns:
        Columns image_path, split, label (the kind), label_index, mask_path, patient_id, series_id, lesion_area;
        ``attrs["task"]``.
    """
    rows = DataFrame(read_manifest(Path(folder)))
    samples = DataFrame(
        {
            "image_path": [str(Path(folder, file)) for file in rows.file],
            "split": rows.split,
            "label": rows.kind,
            "label_index": (rows.label == "abnormal").astype(int),
            "mask_path": [str(Path(folder, mask)) if mask else "" for mask in rows["mask"]],
            "patient_id": rows.patient,
            "series_id": rows.patient,  # its slices are those of one scan
            "lesion_area": rows.lesion_area.astype(int),
        }
    )
    samples.attrs["task"] = "segmentation"
    return samples


def _side(image_size: int | tuple[int, int]) -> int:
    if isinstance(image_size, int):
        return image_size
    height, width = image_size
    if height != width:
        msg = f"image_size is {tuple(image_size)}, expected a square: phantoms are as high as wide."
        raise ValueError(msg)
    return int(height)
