"""The generated phantom as a dataset."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.phantom import read_manifest


class PhantomDataset(MedicalDataset):
    """One split of a phantom that is on disk.

    Args:
        folder: What ``ensure_phantom`` returned.
        split: ``"train"``, ``"test"``, or None for both.
        augmentations: Augmentations of image and mask.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self.samples = make_phantom_dataset(folder, split)


def make_phantom_dataset(folder: str | Path, split: str | None = None) -> DataFrame:
    """List the images of a phantom from its manifest, so that files put beside them by others change nothing.

    Args:
        folder: What ``ensure_phantom`` returned.
        split: ``"train"``, ``"test"``, or None for both.

    Returns:
        Columns image_path, split, label (the kind), label_index, mask_path, patient_id, lesion_area;
        ``attrs["task"]``.
    """
    folder = Path(folder)
    rows = [row for row in read_manifest(folder) if split in {None, row["split"]}]
    samples = DataFrame(
        {
            "image_path": [str(folder / row["file"]) for row in rows],
            "split": [row["split"] for row in rows],
            "label": [row["kind"] for row in rows],
            "label_index": [int(row["label"] == "abnormal") for row in rows],
            "mask_path": [str(folder / row["mask"]) if row["mask"] else "" for row in rows],
            "patient_id": [row["patient"] for row in rows],
            "lesion_area": [int(row["lesion_area"]) for row in rows],
        }
    )
    samples.attrs["task"] = "segmentation"
    return samples
