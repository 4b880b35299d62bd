"""The user's own images: a folder tree, a manifest, or a bare folder to predict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader

from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.folder.dataset import MedicalFolderDataset
from anomalib_medical.data.folder.folder_tree import is_bare
from anomalib_medical.data.patients import TELL_PATIENTS, PatientSource, describe_one_patient, file_facts
from anomalib_medical.data.predict import MedicalPredictDataset
from anomalib_medical.data.samples import UNLABELED, take_left_out
from anomalib_medical.io import Axis, ImageAddress, MaskRule, Slicing, on_disk


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
        self.patient_pattern = patient_pattern
        self.patient_from = patient_from
        self.deduplicate = deduplicate
        self.slicing = Slicing(axis, (slice_range[0], slice_range[1]))
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
        everything = MedicalFolderDataset(
            self.root,
            self.name,
            window=self.window,
            mask_rule=self.mask_rule,
            unlabeled_dir=self.unlabeled_dir,
            manifest=self.manifest,
            patient_pattern=self.patient_pattern,
            patient_from=self.patient_from,
            deduplicate=self.deduplicate,
            slicing=self.slicing,
            seed=self._split_seed,
        )
        self.left_out = take_left_out(everything.samples)
        self.train_data, self.val_data = everything.of_split("train"), everything.of_split("val")
        if len(test := everything.of_split("test")):
            self.test_data = test
        if len(pool := everything.of_split(UNLABELED)):
            self.unlabeled_data = pool

    def _create_val_split(self) -> None:
        if not len(self.val_data):  # none is given
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
