"""The user's own images: a folder tree, or a folder with a CSV manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib.data.utils import LabelName
from pandas import DataFrame
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.clean import drop_leaks, merge_copies
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.entries import NORMAL_CLASS, Entry, build_samples, find_patients
from anomalib_medical.data.folder.folder_tree import list_tree, list_unlabeled
from anomalib_medical.data.folder.manifest import check_patients, read_manifest, split_samples
from anomalib_medical.data.folder.pool_copies import refuse_copies
from anomalib_medical.data.patients import TELL_PATIENTS, PatientSource
from anomalib_medical.data.samples import UNLABELED, with_left_out
from anomalib_medical.io import (
    RASTER_SUFFIXES,
    Listing,
    MaskRule,
    Slicing,
    Window,
    agree,
    counted,
    kind_of_file,
    on_disk,
)

logger = logging.getLogger(__name__)

_SAME_FORMAT = {".jpeg": ".jpg", ".tiff": ".tif"}


class MedicalFolderDataset(MedicalDataset):
    """One split of a folder.

    Args:
        root: The folder.
        name: Name of the dataset. Defaults to the folder's.
        split: ``"train"``, ``"val"``, ``"test"``, ``"unlabeled"``, or None for all.
        augmentations: Augmentations of image and mask.
        window: Which values of DICOM and NIfTI files become black and white.
        mask_rule: Which values of masks count.
        kwargs: The other arguments of `make_medical_folder_dataset`.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        split: str | None = None,
        augmentations: Transform | None = None,
        window: Window | None = None,
        mask_rule: MaskRule | None = None,
        **kwargs: Any,  # noqa: ANN401 # those of the function, which checks them
    ) -> None:
        super().__init__(augmentations=augmentations, window=window, mask_rule=mask_rule)
        self.root = on_disk(Path(root))
        self._name = name or self.root.resolve().name
        self.samples = make_medical_folder_dataset(root, split, mask_rule=mask_rule, **kwargs)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self._name


def make_medical_folder_dataset(
    root: str | Path,
    split: str | None = None,
    patient_pattern: str | None = None,
    *,
    unlabeled_dir: str | Path | None = None,
    manifest: str | Path | None = None,
    slicing: Slicing | None = None,
    deduplicate: bool = False,
    seed: int = 0,
    mask_rule: MaskRule | None = None,
    patient_from: PatientSource = "header",
) -> DataFrame:
    """List the images of a folder.

    The task is segmentation if there is any mask, else classification. Abnormal images without a mask stay in, with
    ``mask_path == ""``.

    Args:
        root: Folder with ``train/good`` and, optionally, ``test/...``, ``ground_truth/...`` and ``unlabeled/``; or the
            folder that a manifest's paths are below.
        split: ``"train"``, ``"val"``, ``"test"``, ``"unlabeled"``, or None for all.
        patient_pattern: See `MedicalFolder`, as for the next two and the last.
        unlabeled_dir: The unlabeled pool, if it is not ``<root>/unlabeled``.
        manifest: CSV file, see `read_manifest`; the folder tree is not looked at then.
        slicing: How volumes become slices; all axial slices if None.
        deduplicate: Whether near-duplicates count as images of one patient, are kept once in each split (in training
            set and pool together), and are dropped from these two if one is in validation or test.
        seed: Decides which normal patients of a manifest without splits are in the test.
        mask_rule: Which values of masks count; all that are not 0 if None.
        patient_from: Where patients come from if neither manifest nor pattern says so, see `find_patients`.

    Returns:
        Columns image_path, split, label (the class), label_index, mask_path, patient_id, meta_*; ``attrs["task"]``.
        What the folders hold beside is logged, and for `take_left_out`.

    Raises:
        FileNotFoundError: If there is no training image, or a file of the manifest is missing.
        ValueError: If ``patient_pattern`` does not match every file name, or the unlabeled pool shares images with the
            other parts, be it as copies of other names (those are dropped with ``deduplicate``).
        TableError: If the manifest cannot be used.
        ImageReadError: If a header or mask cannot be read, or a mask cannot be laid over its image.
    """
    if patient_pattern is not None and patient_from != "header":
        msg = f"Got patient_pattern and patient_from={patient_from}, expected one of the two."
        raise ValueError(msg)
    root = on_disk(Path(root))
    pool_dir = None if unlabeled_dir is None else on_disk(Path(unlabeled_dir))
    manifest = None if manifest is None else on_disk(Path(manifest))
    unused_masks = 0
    if manifest is None:
        entries, left_out, unused_masks = list_tree(root, pool_dir)
    else:
        entries, left_out = _without_other_objects(read_manifest(manifest, root))
        if pool_dir is not None:
            pool, beside = list_unlabeled(root, pool_dir, {entry.path.path for entry in entries})
            entries, left_out = entries + pool, left_out + beside
    find_patients(entries, root, patient_pattern, patient_from)
    if manifest is not None:
        check_patients(manifest, entries)
    if not deduplicate:
        refuse_copies(entries)
    samples = build_samples(entries, slicing, mask_rule)
    if deduplicate:
        patients, copies = merge_copies(samples)
        samples = samples.assign(patient_id=patients, copies=copies)
    if manifest is not None:
        samples = split_samples(samples, seed)
        _require_normals(manifest, samples)
    if deduplicate:
        samples = drop_leaks(samples, list(samples.copies), root.name).drop(columns="copies")
    if split != "train":
        _report(samples, unused_masks)
    samples = samples if split is None else samples[samples.split == split].reset_index(drop=True)
    return with_left_out(samples, left_out, str(root))


def _without_other_objects(entries: Sequence[Entry]) -> tuple[list[Entry], Listing]:
    """Take out what a list names and is no image, such as the Segmentations of an export."""
    images, left_out = [], Listing()
    for entry in entries:
        kind = None if entry.path.selection else kind_of_file(entry.path.path)
        if kind is None:
            images.append(entry)
        else:
            left_out += Listing(no_images={kind: [entry.path.path]})
    return images, left_out


def _require_normals(manifest: Path, samples: DataFrame) -> None:
    if not (samples.split == "train").any():
        one = len(set(samples.patient_id)) == 1
        msg = (
            f"The manifest {manifest} leaves no normal image for training: of "
            f"{counted(len(samples), 'image')} none is in the split train. Add normal images of patients who "
            f"have no abnormal ones.{f' {TELL_PATIENTS}' if one else ''}"
        )
        raise ValueError(msg)


def _report(samples: DataFrame, unused_masks: int) -> None:
    """Warn, in counts only, of what the user may not intend."""
    test = samples[samples.split == "test"]
    abnormal = test[test.label_index == LabelName.ABNORMAL]
    unmasked = int((abnormal.mask_path == "").sum())
    if 0 < unmasked < len(abnormal):
        logger.warning(
            "%d of %d abnormal images %s no mask: such count for image metrics and are left out of pixel metrics.",
            unmasked,
            len(abnormal),
            agree(unmasked, "has", "have"),
        )
    if unused_masks:
        belong = f"{counted(unused_masks, 'mask')} in ground_truth/ {agree(unused_masks, 'belongs', 'belong')}"
        logger.warning("%s to no image in test/ (compare the stems).", belong)
    for index, word in ((LabelName.NORMAL, "normal"), (LabelName.ABNORMAL, "abnormal")):
        if len(test) and not (test.label_index == index).any():
            logger.warning("The test set has no %s images: AUROC and F1 have no value (nan).", word)
    _warn_of_formats(samples)
    for part in ("train", "val", UNLABELED):
        shared = set(samples[samples.split == part].patient_id) & set(test.patient_id)
        if shared:
            have = f"{counted(len(shared), 'patient')} {agree(len(shared), 'has', 'have')}"
            logger.warning("LEAK: %s images in %s and in test; results will flatter.", have, part)


def _warn_of_formats(samples: DataFrame) -> None:
    """Warn where a file's format may tell the label: compression leaves traces that a model learns."""
    formats = samples.image_path.map(lambda path: Path(path).suffix.lower()).replace(_SAME_FORMAT)
    known = formats.isin(RASTER_SUFFIXES)
    normal = set(formats[known & (samples.label == NORMAL_CLASS)])
    abnormal = formats[known & (samples.label_index == LabelName.ABNORMAL)]
    others = abnormal[~abnormal.isin(normal)]
    if normal and len(others):
        logger.warning(
            "%d of %s %s stored as %s, and no normal image is: the format may tell the label.",
            len(others),
            counted(len(abnormal), "abnormal image"),
            agree(len(others), "is", "are"),
            ", ".join(sorted(set(others))),
        )
