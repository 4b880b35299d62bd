"""BMAD's six sets, in the folders that its page shows and those that anomalib's own ``BMAD`` reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, get_args

from pandas import DataFrame, Series

from anomalib_medical.data.clean import drop_leaks, merge_copies
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.layouts import image_names, image_row, list_class_folders, own_patient
from anomalib_medical.data.samples import take_left_out, with_left_out
from anomalib_medical.io import Listing, agree, counted, list_folder

logger = logging.getLogger(__name__)

Category = Literal["Brain", "Chest", "Histopathology", "Liver", "Retina_OCT2017", "Retina_RESC"]
_ABNORMAL = "Ungood"
_CLASSES = {"train": (NORMAL_CLASS,), "test": (NORMAL_CLASS, _ABNORMAL)}
_MASKS = "label"
#: A slide's name in the name of a patch that was cut from it.
SLIDE = r"((?:normal|tumor|test)_\d{3})(?=[_-])"
# The patient in a file's name: `00003_60` is slice 60 of BraTS' patient 3, `CNV-1016042-1` image 1 of a patient with
# that disease. Of chests and RESC the names are not known to say it.
_PATIENTS: dict[str, str] = {
    "Brain": r"^(?:BraTS2021_)?(\d{5})_",
    "Histopathology": SLIDE,
    "Liver": r"^(?:liver_)?(\d+)_\d+",
    "Retina_OCT2017": r"^[A-Z]+-(\d+)-\d+$",
}


class MedicalBMAD(MedicalDataModule):
    """A set of BMAD by patients: what plans make of anomalib's own ``BMAD``.

    BMAD's train and test, less the training images of tested patients. Its ``valid`` is left out: a hospital has no
    labelled anomalies to fit a threshold on, and some of its patients are in the test. Held-out normals come from the
    training set. Where names do not tell patients (chests, RESC, numbered patches), each image is one of its own, and a
    warning says so.

    Args:
        root: The folder of all sets, or of this one.
        category: The set, as anomalib names its folder.
        deduplicate: Whether near-duplicates count as images of one patient, and are kept once.
        kwargs: As `MedicalDataModule` has them.
    """

    def __init__(
        self,
        root: str | Path = "./datasets/BMAD",
        category: Category = "Brain",
        deduplicate: bool = False,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(**kwargs)
        if category not in get_args(Category):
            msg = f"category is {category!r}, expected one of {', '.join(get_args(Category))}."
            raise ValueError(msg)
        self.root = Path(root)
        self.category: Category = category
        self.deduplicate = deduplicate

    def prepare_data(self) -> None:
        """Refuse a folder without the set.

        Raises:
            FileNotFoundError: If it is not there; the message says where to get it.
        """
        self._folder()

    def _folder(self) -> Path:
        for folder in (self.root / self.category, self.root):
            if (folder / "train").is_dir():
                return folder
        msg = (
            f"BMAD's {self.category} is not in {self.root}: there is no {self.category}/train in it, and no train.\n"
            "Source: https://github.com/DorisBao/BMAD (CC BY-NC-SA 4.0), or let anomalib's own datamodule download it: "
            f"anomalib.data.BMAD({str(self.root)!r}).prepare_data()\n"
            "Expected: <root>/<category>/{train,test}/{good,Ungood}/*.png, in test/ also .../{img,label}/*.png"
        )
        raise FileNotFoundError(msg)

    def _setup(self, _stage: str | None = None) -> None:
        samples = make_bmad_dataset(self._folder(), self.category, deduplicate=self.deduplicate)
        self.left_out = take_left_out(samples)
        self._set_parts(MedicalDataset(samples, f"{self.name} {self.category}", window=self.window))


def make_bmad_dataset(root: str | Path, category: Category, *, deduplicate: bool = False) -> DataFrame:
    """List a set's images: ``good`` is normal, ``Ungood`` abnormal, with the mask in ``label`` of the same name.

    Args:
        root: The set's folder, with ``train`` and ``test``.
        category: Says which names tell patients.
        deduplicate: As for `MedicalBMAD`.

    Returns:
        The table that `MedicalDataset` reads from, less training images whose patient or copy is tested.

    Raises:
        FileNotFoundError: If a part has no images.
        MedicalError: If there is a folder of another label.
    """
    samples = list_bmad(Path(root), f"BMAD {category}")
    left_out = samples.attrs
    patients = named_patients(samples, _PATIENTS.get(category), f"BMAD {category}", "patient")
    if category == "Liver":
        # BTCV's patients in training, LiTS' in the test: the same number is not the same patient.
        patients = samples.split + " " + patients
    samples = samples.assign(patient_id=patients, known_normal=True)
    copies = None
    if deduplicate:
        merged, copies = merge_copies(samples)
        samples = samples.assign(patient_id=merged)
    samples = drop_leaks(samples, copies, f"BMAD {category}")
    samples.attrs = left_out | {"task": "segmentation" if (samples.mask_path != "").any() else "classification"}
    return samples


def list_bmad(base: Path, name: str) -> DataFrame:
    """List train and test of one of BMAD's sets, each image a patient of its own; ``name`` is for the log."""
    rows = []
    listing = Listing()
    for part, expected in _CLASSES.items():
        for label, of_class in list_class_folders(base / part, expected).items():
            listing += of_class
            folder = base / part / label / _MASKS
            masks = {path.stem: path for path in of_class.images if path.is_relative_to(folder)}
            images = [path for path in of_class.images if not path.is_relative_to(folder)]
            # A normal image's mask is empty.
            used = masks if label == _ABNORMAL else {}
            rows += [
                image_row(path, label, own_patient(path, base), split=part, mask=used.get(path.stem)) for path in images
            ]
            if unused := len(masks.keys() - {path.stem for path in images}):
                masks_in = f"{counted(unused, 'mask')} in {folder}"
                logger.warning("%s: %s %s to no image.", name, masks_in, agree(unused, "belongs", "belong"))
    left_out = sum(path.parent.name != _MASKS for path in list_folder(base / "valid").images)
    logger.info("%s: left out %s of valid/, as the papers do.", name, counted(left_out, "image"))
    return with_left_out(DataFrame(rows), listing, name)


def named_patients(samples: DataFrame, pattern: str | None, name: str, unit: str) -> Series[str]:
    """Take patients out of file names, with a warning of those that do not name one."""
    names = image_names(samples)
    found = Series(None, index=samples.index, dtype=object) if pattern is None else names.str.extract(pattern)[0]
    if unknown := int(found.isna().sum()):
        logger.warning(
            "%s: %d of %s %s not name a %s: one %s may be in training and test.",
            name,
            unknown,
            counted(len(found), "file name"),
            agree(unknown, "does", "do"),
            unit,
            unit,
        )
    return found.fillna(samples.patient_id)
