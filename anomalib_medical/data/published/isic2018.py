"""ISIC 2018, task 3: dermoscopic images of nevi and of six other lesions."""

from __future__ import annotations

import logging
from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame, Series

from anomalib_medical.data.checks import parse_numbers, read_table, refuse_duplicates, refuse_rows, row_error
from anomalib_medical.data.download import Archive, download
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol, first_there
from anomalib_medical.data.published.layouts import image_names, image_row, images_named, own_patient
from anomalib_medical.io import agree, counted

logger = logging.getLogger(__name__)

_BUCKET = "https://isic-challenge-data.s3.amazonaws.com/2018"
_TASK = "ISIC2018_Task3"
_LESIONS = f"{_TASK}_Training_LesionGroupings.csv"
# Published for download beside the archives; we have not seen what is behind these addresses.
LESION_FILE = Archive(f"{_BUCKET}/{_LESIONS}", _LESIONS)
# Part: where its images are, and its table (or in a folder of that name).
_IMAGES = {part: f"{_TASK}_{part}_Input" for part in ("Training", "Test")}
_TABLES = {
    part: tuple(f"{folder}{_TASK}_{part}_GroundTruth.csv" for folder in ("", f"{_TASK}_{part}_GroundTruth/"))
    for part in _IMAGES
}
ABOUT = PublishedSet(
    name="ISIC2018",
    title="ISIC 2018, task 3 (lesion diagnosis)",
    url="https://challenge.isic-archive.com/data/#2018",
    licence="CC BY-NC 4.0",
    access="download from the ISIC challenge's page, without an account",
    tree=f"""
  <root>/{_TASK}_Training_Input/*.jpg
  <root>/{_TASK}_Training_GroundTruth.csv (or in a folder of that name)
  <root>/{_TASK}_Test_Input/*.jpg
  <root>/{_TASK}_Test_GroundTruth.csv (or in a folder of that name)
  <root>/{_LESIONS} (which images show one lesion; optional)
or
  <root>/images/*.jpg
  <root>/data.json
  <root>/{_LESIONS} (optional)""",
    original=(*((folder,) for folder in _IMAGES.values()), *_TABLES.values()),
    counts=PublishedCounts(train=6705, test_normal=909, test_abnormal=603),
    archives=tuple(
        Archive(f"{_BUCKET}/{_TASK}_{part}.zip", f"{_TASK}_{part}.zip")
        for part in ("Training_Input", "Training_GroundTruth", "Test_Input", "Test_GroundTruth")
    ),
)
_CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
_NORMAL = "NV"


def make_isic2018_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = False, seed: int = 0
) -> DataFrame:
    """List the images: nevi (NV) are normal, the other six diagnoses are abnormal.

    As in the papers, all nevi of the training set are for training, the test set is for the test, and the other
    training images and the validation set are left out. Patients are unknown: a lesion is taken for one, where the
    lesion groupings are there. Arguments, outcome and errors are those of `apply_protocol`; the files give the split.
    """
    root = Path(root)
    samples = ABOUT.samples_in(root, _list_diagnosed)
    samples = samples.assign(patient_id=_lesions(root, samples))
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_diagnosed(root: Path) -> DataFrame:
    rows = []
    for part, split in (("Training", "train"), ("Test", "test")):
        file = first_there(root, _TABLES[part])
        table = read_table(file, ("image", *_CLASSES))
        paths = images_named(file, table, "image", root / _IMAGES[part], ".jpg")
        for path, name in zip(paths, _diagnoses(file, table), strict=True):
            label = NORMAL_CLASS if name == _NORMAL else name
            rows.append(image_row(path, label, own_patient(path, root), split=split))
    samples = DataFrame(rows)
    kept = (samples.split == "test") | (samples.label_index == LabelName.NORMAL)
    left_out = int((~kept).sum())
    show = agree(left_out, "shows", "show")
    logger.info("ISIC2018: left out %s that %s no nevus.", counted(left_out, "training image"), show)
    return samples[kept]


def _diagnoses(file: Path, table: DataFrame) -> list[str]:
    """Return each row's class, which has the only 1."""
    numbers = parse_numbers(file, table, _CLASSES)
    wrong = numbers[~numbers.isin([0, 1]).all(axis=1) | (numbers.sum(axis=1) != 1)]
    if len(wrong):
        found = ", ".join(f"{name} {number:g}" for name, number in wrong.iloc[0].items() if number) or "only zeros"
        raise row_error(file, wrong.index[0], f"has {found}", "1 for one diagnosis and 0 for the others")
    return [str(name) for name in numbers.idxmax(axis=1)]


def _lesions(root: Path, samples: DataFrame) -> Series[str]:
    """Return the lesion of each image, or the image itself where that is unknown."""
    file = root / _LESIONS
    if not file.is_file():
        logger.warning("ISIC2018: without %s images of one lesion may be trained and validated on.", _LESIONS)
        return samples.patient_id
    table = read_table(file, ("image", "lesion_id"), ("diagnosis_confirm_type",))
    refuse_duplicates(file, table, "image")
    refuse_rows(file, table, table.lesion_id == "", "has no lesion_id", "one")
    lesions = image_names(samples).map(table.set_index("image").lesion_id)
    if unknown := int((lesions.isna() & (samples.split == "train")).sum()):
        images = f"{counted(unknown, 'training image')} {agree(unknown, 'is', 'are')}"
        logger.warning("ISIC2018: %s not in %s, each is taken for a lesion.", images, file)
    return lesions.fillna(samples.patient_id)


class ISIC2018(PublishedDataModule):
    """ISIC 2018, task 3: nevi against six other skin lesions.

    Both protocols train on the training set's nevi and test on the test set. A lesion is a patient.

    Its parameters are those of `PublishedDataModule`. ``download`` gets what is missing from the challenge's public
    storage.
    """

    about = ABOUT

    def prepare_data(self) -> None:
        """Download the dataset, and the file that says which images show one lesion, where that is wanted.

        Raises:
            FileNotFoundError: If it is not in the root.
            MedicalError: If the download fails.
        """
        super().prepare_data()
        if self.download and not (self.root / _LESIONS).is_file():
            download(LESION_FILE, self.root)

    def _make_samples(self) -> DataFrame:
        return make_isic2018_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
