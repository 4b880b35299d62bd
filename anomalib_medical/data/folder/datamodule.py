"""The user's own images: a folder tree, a folder with a CSV manifest, or a bare folder to predict."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from anomalib.data.utils import LabelName
from pandas import DataFrame
from torch.utils.data import DataLoader

from anomalib_medical.data.clean import drop_leaks, merge_copies
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset, MedicalPredictDataset
from anomalib_medical.data.entries import NORMAL_CLASS, Entry, build_samples, find_patients
from anomalib_medical.data.folder.folder_tree import is_bare, list_tree, list_unlabeled
from anomalib_medical.data.folder.manifest import Wording, check_patients, read_manifest, split_samples
from anomalib_medical.data.folder.pool_copies import refuse_copies
from anomalib_medical.data.patients import TELL_PATIENTS, PatientSource, describe_one_patient, file_facts
from anomalib_medical.data.samples import UNLABELED, take_left_out, with_left_out
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import (
    RASTER_SUFFIXES,
    Axis,
    ImageAddress,
    Listing,
    MaskRule,
    Slicing,
    agree,
    counted,
    kind_of_file,
    on_disk,
)

logger = logging.getLogger(__name__)

_SAME_FORMAT = {".jpeg": ".jpg", ".tiff": ".tif"}


class MedicalFolder(MedicalDataModule):
    """A folder with ``train/good`` and, optionally, ``test/good``, ``test/<class>``, ``ground_truth/<class>``.

    PNG, JPEG, TIFF, WebP, BMP, PGM and PPM files, DICOM files (every frame an image) and NIfTI volumes (every slice an
    image). The mask of ``test/<class>/a.jpg`` is ``ground_truth/<class>/a.png`` (or ``a_mask.png``). Abnormal images
    without a mask count for image metrics only. Without ``test/`` the data can be trained on, not tested. A folder with
    neither ``train/`` nor ``test/`` can be predicted: every image in it, at any depth.

    Args:
        root: The folder.
        name: Name of the dataset, used for result folders. Defaults to the folder's.
        unlabeled_dir: Folder of images of which nobody knows whether they are normal, for models that learn from such.
            Defaults to ``<root>/unlabeled`` where that exists.
        manifest: CSV file with the columns path (below ``root``), label (normal, abnormal or abnormal:<class>) and
            optionally patient, mask, split (train, val, test, unlabeled) and ``meta_*``, instead of the folder tree.
            Without the column split, patients with abnormal images and a fifth of the others go to the test.
        columns: What the manifest calls these columns, such as {"path": "file", "label": "finding", "meta_sex": "Sex"};
            others that it has are passed over then.
        labels: What its labels mean, such as {"No Finding": "normal", "Mass": "abnormal:mass"}.
        patient_pattern: Regular expression searched in each file's name without suffix; its first group, or the whole
            match, is the patient. Without it DICOM headers say who the patient is (we keep a pseudonym only), a volume
            is a patient, and every other file is a patient of its own.
        patient_from: Where patients come from instead if headers do not tell them apart, as in anonymised exports:
            ``"study"`` or ``"series"`` of DICOM files, ``"folder"`` (the first below ``train/good`` or its like; with a
            manifest, below ``root``) or ``"file"``.
        deduplicate: Whether near-duplicates, looked for over all pairs, count as images of one patient; they are kept
            once in each split, training and pool being one, and dropped from these if one is in validation or test.
            Without it a pool that holds a file of another split once more, under any name, is refused.
        axis: NIfTI volumes are cut into ``axial``, ``coronal`` or ``sagittal`` slices.
        slice_range: First and last slice as shares of the volume, such as [0.2, 0.8].
        mask_labels: Values of masks that are abnormal, such as [2] where 1 is the organ and 2 the tumour; None for all
            that are not 0. A slice or image whose mask holds none of them is normal.
        mask_threshold: Values of masks above it are abnormal, instead: fractions are refused without it.
        test_split_mode: ``"from_dir"`` only: the test is what the folder says. anomalib's tiled ensembles ask for it.
        kwargs: As `MedicalDataModule` has them; a manifest's split val comes before ``val_split_mode``.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        unlabeled_dir: str | Path | None = None,
        manifest: str | Path | None = None,
        columns: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        patient_pattern: str | None = None,
        patient_from: PatientSource = "header",
        deduplicate: bool = False,
        axis: Axis = "axial",
        slice_range: tuple[float, float] = (0.0, 1.0),
        mask_labels: list[int] | None = None,
        mask_threshold: float | None = None,
        test_split_mode: Literal["from_dir"] = "from_dir",
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(**kwargs)
        try:
            re.compile(patient_pattern or "")
        except re.error as error:
            msg = f"patient_pattern={patient_pattern!r} is not a regular expression: {error}."
            raise ValueError(msg) from error
        if test_split_mode != "from_dir":
            msg = f"test_split_mode is {test_split_mode!r}, expected 'from_dir': the test is what the folder says."
            raise ValueError(msg)
        self.root = on_disk(Path(root))
        self._name = name or self.root.resolve().name
        self.unlabeled_dir = unlabeled_dir
        self.manifest = manifest
        self.wording = Wording(columns or {}, labels or {})
        if manifest is None and self.wording != Wording():
            msg = "Got columns or labels without a manifest: they say what its columns and labels mean."
            raise MedicalError(msg)
        self.patient_pattern = patient_pattern
        self.patient_from = patient_from
        self.deduplicate = deduplicate
        self.slicing = Slicing(axis, (slice_range[0], slice_range[1]))
        self.reading |= {"axis": axis, "slice_range": [*self.slicing.slice_range]}
        self.mask_rule = MaskRule.of(mask_labels, mask_threshold)
        self._predict_data: MedicalPredictDataset | None = None

    @property
    def name(self) -> str:  # type: ignore[override] # Lightning declares an attribute, anomalib makes it a property
        """Name of the dataset."""
        return self._name

    def setup(self, stage: str | None = None) -> None:
        """Set up the parts of the data; for predict, a folder without such parts is taken as it is."""
        if stage == "predict" and self.manifest is None and is_bare(self.root):
            self._predict_data = MedicalPredictDataset(self.root, self.window, self.slicing)
            self._use_our_visualizer()
            return
        super().setup(stage)

    def _setup(self, _stage: str | None = None) -> None:
        samples = make_medical_folder_dataset(
            self.root,
            patient_pattern=self.patient_pattern,
            unlabeled_dir=self.unlabeled_dir,
            manifest=self.manifest,
            wording=self.wording,
            slicing=self.slicing,
            deduplicate=self.deduplicate,
            seed=self._split_seed,
            mask_rule=self.mask_rule,
            patient_from=self.patient_from,
        )
        self.left_out = take_left_out(samples)
        addresses = (ImageAddress.parse(path) for path in samples.image_path if "#" in path)
        if not any(self.slicing.axis in dict(address.selection) for address in addresses):
            self.reading = {"window": self.reading["window"]}  # there is no volume
        self._set_parts(MedicalDataset(samples, self.name, window=self.window, mask_rule=self.mask_rule))

    def _create_val_split(self) -> None:
        # The manifest's, if it gives one.
        if not len(self.val_data):
            super()._create_val_split()

    def _advice_for_one_patient(self) -> str:
        files = {ImageAddress.parse(path).path for path in self.train_data.samples.image_path}
        return describe_one_patient([file_facts(file) for file in sorted(files)]) + TELL_PATIENTS + " "

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load the images of a bare folder, or else the test set."""
        data = self._predict_data
        if data is None:
            return self.test_dataloader()
        # Sizes may differ: one by one.
        return DataLoader(data, batch_size=1, num_workers=self.num_workers, collate_fn=data.collate_fn)


def make_medical_folder_dataset(
    root: str | Path,
    *,
    patient_pattern: str | None = None,
    unlabeled_dir: str | Path | None = None,
    manifest: str | Path | None = None,
    wording: Wording | None = None,
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
        patient_pattern: As for `MedicalFolder`.
        unlabeled_dir: As for `MedicalFolder`.
        manifest: As for `MedicalFolder`; see `read_manifest`.
        wording: What the manifest calls its columns and labels.
        slicing: How volumes become slices; all axial slices if None.
        deduplicate: As for `MedicalFolder`.
        seed: Decides which normal patients of a manifest without splits are in the test.
        mask_rule: Which values of masks count; all that are not 0 if None.
        patient_from: As for `MedicalFolder`.

    Returns:
        Columns image_path, split, label (the class), label_index, mask_path, patient_id, meta_*; ``attrs["task"]``.
        What the folders hold beside is logged, and for `take_left_out`.

    Raises:
        FileNotFoundError: If there is no training image, or a file of the manifest is missing.
        ValueError: If ``patient_pattern`` does not match every file name, or the unlabeled pool shares images with the
            other parts, be it as copies of other names (those are dropped with ``deduplicate``).
        MedicalError: If the manifest cannot be used.
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
        entries, left_out = _without_other_objects(read_manifest(manifest, root, wording))
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
    report_samples(samples, unused_masks)
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


def report_samples(samples: DataFrame, unused_masks: int) -> None:
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
