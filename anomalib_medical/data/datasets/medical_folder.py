"""Images in a folder tree: `train/good`, `test/good`, `test/<class>`, `ground_truth/<class>`."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.datasets.base import MedicalDataset, mask_size_error
from anomalib_medical.data.io import image_size, list_images

logger = logging.getLogger(__name__)

NORMAL_CLASS = "good"
EXPECTED_TREE = """Expected:
  <root>/train/good/*.png                 normal images (PNG, JPEG, TIFF or BMP)
  <root>/test/good/*.png                  normal images for the test
  <root>/test/<class>/*.png               abnormal images, one folder a class
  <root>/ground_truth/<class>/<stem>.png  optional: the mask of the image with the same stem"""


class MedicalFolderDataset(MedicalDataset):
    """One split of a folder tree.

    Args:
        root: Folder with ``train`` and, optionally, ``test`` and ``ground_truth``.
        name: Name of the dataset. Defaults to the folder's.
        split: ``"train"``, ``"test"``, or None for both.
        patient_pattern: See ``make_medical_folder_dataset``.
        augmentations: Augmentations of image and mask.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        split: str | None = None,
        patient_pattern: str | None = None,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self.root = Path(root)
        self._name = name or self.root.resolve().name
        self.samples = make_medical_folder_dataset(root, split, patient_pattern)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self._name


def make_medical_folder_dataset(
    root: str | Path,
    split: str | None = None,
    patient_pattern: str | None = None,
) -> DataFrame:
    """List the images of a folder tree.

    The task is segmentation if there is any mask, else classification. Abnormal images without a mask stay in, with
    ``mask_path == ""``.

    Args:
        root: Folder with ``train/good`` and, optionally, ``test/...`` and ``ground_truth/...``.
        split: ``"train"``, ``"test"``, or None for both.
        patient_pattern: Regular expression searched in each file's stem; its first group, or the whole match, is the
            patient. Without it every file is a patient of its own.

    Returns:
        Columns image_path, split, label (the class), label_index, mask_path, patient_id; ``attrs["task"]``.

    Raises:
        FileNotFoundError: If there is no training image.
        ValueError: If ``patient_pattern`` does not match every stem.
        ImageReadError: If a mask and its image differ in size.
    """
    root = Path(root)
    normal_dir = root / "train" / NORMAL_CLASS
    train = list_images(normal_dir)
    if not train:
        raise _no_normals(root, normal_dir)
    classes = sorted(path for path in _subfolders(root / "test"))
    images = [("train", NORMAL_CLASS, path) for path in train]
    images += [("test", folder.name, path) for folder in classes for path in list_images(folder)]

    masks = _masks_by_image(root)
    rows = []
    for part, label, path in images:
        abnormal = label != NORMAL_CLASS
        relative = path.relative_to(root / part / label)
        mask = masks.pop((label, str(relative.with_suffix(""))), None) if abnormal else None
        rows.append((str(path), part, label, int(abnormal), str(mask or "")))
    samples = DataFrame(rows, columns=["image_path", "split", "label", "label_index", "mask_path"])
    samples["patient_id"] = _patients([path.relative_to(root) for _, _, path in images], patient_pattern)
    samples.attrs["task"] = "segmentation" if (samples.mask_path != "").any() else "classification"
    _check_mask_sizes(samples)
    if split != "train":
        _report(samples, unused_masks=len(masks), by_pattern=patient_pattern is not None)
    return samples if split is None else samples[samples.split == split].reset_index(drop=True)


def _subfolders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []


def _masks_by_image(root: Path) -> dict[tuple[str, str], Path]:
    """Map (class, image path below the class folder without suffix) to the mask; ``<stem>_mask`` is understood too."""
    masks: dict[tuple[str, str], Path] = {}
    for folder in _subfolders(root / "ground_truth"):
        for path in list_images(folder):
            stem = str(path.relative_to(folder).with_suffix(""))
            masks[folder.name, stem.removesuffix("_mask")] = path
    return masks


def _patients(paths: list[Path], pattern: str | None) -> list[str]:
    if pattern is None:
        # Two files may share their name in different folders. The path below the root is the same on every machine.
        return [path.as_posix() for path in paths]
    matches = [re.search(pattern, path.stem) for path in paths]
    patients = [(match[1] if match.re.groups else match[0]) if match else None for match in matches]
    unmatched = [path for path, patient in zip(paths, patients, strict=True) if not patient]
    if unmatched:
        msg = (
            f"patient_pattern={pattern!r} finds no patient in {len(unmatched)} of {len(paths)} file names, such as "
            f"{unmatched[0]}. It is searched in the name without suffix, and its first group (or the whole match) is "
            "the patient: widen it, or leave it out to take every file as its own patient."
        )
        raise ValueError(msg)
    return [patient for patient in patients if patient]


def _no_normals(root: Path, normal_dir: Path) -> FileNotFoundError:
    if not root.is_dir():
        found = f"There is no folder {root}."
    elif not any(root.iterdir()):
        found = f"The folder {root} is empty."
    else:
        there = ", ".join(sorted(child.name for child in root.iterdir())[:10])
        found = f"No normal images in {normal_dir} ({root} holds: {there})."
    return FileNotFoundError(f"{found} {EXPECTED_TREE}")


def _check_mask_sizes(samples: DataFrame) -> None:
    """Compare the headers now, rather than fail in the test after hours of training."""
    masked = samples[samples.mask_path != ""]
    for image_path, mask_path in zip(masked.image_path, masked.mask_path, strict=True):
        sizes = image_size(image_path), image_size(mask_path)
        if sizes[0] != sizes[1]:
            raise mask_size_error(image_path, sizes[0], mask_path, sizes[1])


def _report(samples: DataFrame, *, unused_masks: int, by_pattern: bool) -> None:
    """Warn, in counts only, of what the user may not intend."""
    test = samples[samples.split == "test"]
    abnormal = test[test.label_index == LabelName.ABNORMAL]
    unmasked = int((abnormal.mask_path == "").sum())
    if 0 < unmasked < len(abnormal):
        logger.warning(
            "%d of %d abnormal images have no mask: they count for image metrics and are left out of pixel metrics.",
            unmasked,
            len(abnormal),
        )
    if unused_masks:
        logger.warning("%d masks in ground_truth/ belong to no image in test/ (compare the stems).", unused_masks)
    for index, word in ((LabelName.NORMAL, "normal"), (LabelName.ABNORMAL, "abnormal")):
        if len(test) and not (test.label_index == index).any():
            logger.warning("The test set has no %s images: AUROC and F1 will mean nothing.", word)
    shared = set(samples[samples.split == "train"].patient_id) & set(test.patient_id)
    if by_pattern and shared:
        logger.warning("LEAK: %d patients have images in train/ and in test/; test results will flatter.", len(shared))
