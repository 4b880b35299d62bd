"""ISIC 2018, task 3: dermoscopic images of nevi and of six other lesions."""

from __future__ import annotations

import logging
from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.checks import parse_numbers, read_table, refuse_duplicates, row_error
from anomalib_medical.data.download import Archive, download
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.class_folders import image_row, images_named
from anomalib_medical.data.published.data_json import find_prepared, read_data_json
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, apply_protocol
from anomalib_medical.data.published.source import DatasetSource
from anomalib_medical.io import agree, counted

logger = logging.getLogger(__name__)

_BUCKET = "https://isic-challenge-data.s3.amazonaws.com/2018"
_TASK = "ISIC2018_Task3"
_LESIONS = f"{_TASK}_Training_LesionGroupings.csv"
# Published for download beside the archives; we have not seen what is behind these addresses.
LESION_FILE = Archive(f"{_BUCKET}/{_LESIONS}", _LESIONS)
SOURCE = DatasetSource(
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
    archives=tuple(
        Archive(f"{_BUCKET}/{_TASK}_{part}.zip", f"{_TASK}_{part}.zip")
        for part in ("Training_Input", "Training_GroundTruth", "Test_Input", "Test_GroundTruth")
    ),
)
COUNTS = PublishedCounts(train=6705, test_normal=909, test_abnormal=603)
_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
_NORMAL = "NV"


def is_isic2018(root: Path) -> bool:
    """Whether a folder holds the dataset in a layout that is understood."""
    parts = [(root / f"{_TASK}_{part}_Input").is_dir() and _truth(root, part) for part in ("Training", "Test")]
    return find_prepared(root) is not None or all(parts)


def has_lesions(root: Path) -> bool:
    """Whether the file is there that says which images show one lesion."""
    return (root / _LESIONS).is_file()


def make_isic2018_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the images: nevi (NV) are normal, the other six diagnoses are abnormal.

    As in the papers, all nevi of the training set are for training, the test set is for the test, and the other
    training images and the validation set are left out. Patients are unknown: a lesion is taken for one, where the
    lesion groupings are there.

    Args:
        root: The dataset's folder.
        protocol: ``"clean"`` or ``"published"``.
        deduplicate: Whether near-duplicates count as one patient.
        seed: Has no effect on the split, which the files give.

    Returns:
        Columns as `MedicalDataset` has them; ``attrs["task"]``.

    Raises:
        DatasetNotFoundError: If the dataset, or a part of it, is not there.
        FileNotFoundError: If an image is missing.
        TableError: If a table cannot be used; the message names the row.
        ProtocolError: If ``"published"`` cannot be had.
    """
    root = Path(root)
    if not is_isic2018(root):
        raise SOURCE.not_found(root)
    layout = find_prepared(root)
    samples = _list_diagnosed(root) if layout is None else read_data_json(layout)
    return apply_protocol(
        samples.assign(patient_id=_lesions(root, samples)),
        name="ISIC2018",
        counts=COUNTS,
        protocol=protocol,
        deduplicate=deduplicate,
        seed=seed,
    )


def _truth(root: Path, part: str) -> Path | None:
    name = f"{_TASK}_{part}_GroundTruth"
    return next((file for file in (root / f"{name}.csv", root / name / f"{name}.csv") if file.is_file()), None)


def _list_diagnosed(root: Path) -> DataFrame:
    rows = [*_list_part(root, "Training", "train"), *_list_part(root, "Test", "test")]
    kept = [row for row in rows if row["split"] == "test" or row["label_index"] == LabelName.NORMAL]
    left_out = len(rows) - len(kept)
    show = agree(left_out, "shows", "show")
    logger.info("ISIC2018: left out %s that %s no nevus.", counted(left_out, "training image"), show)
    return DataFrame(kept)


def _list_part(root: Path, part: str, split: str) -> list[dict[str, str | int]]:
    file = _truth(root, part)
    if file is None:
        raise SOURCE.not_found(root)
    table = read_table(file, ("image", *_CLASSES))
    paths = images_named(file, table, "image", root / f"{_TASK}_{part}_Input", ".jpg")
    return [
        image_row(path, root, NORMAL_CLASS if label == _NORMAL else label, split=split)
        for path, label in zip(paths, _diagnoses(file, table), strict=True)
    ]


def _diagnoses(file: Path, table: DataFrame) -> list[str]:
    """Return each row's class, which has the only 1."""
    labels = []
    for line, row in parse_numbers(file, table, _CLASSES).iterrows():
        named = [name for name in _CLASSES if row[name] == 1]
        if len(named) != 1 or any(row[name] not in {0, 1} for name in _CLASSES):
            found = ", ".join(f"{name} {row[name]:g}" for name in _CLASSES if row[name]) or "only zeros"
            raise row_error(file, line, f"has {found}", "1 for one diagnosis and 0 for the others")
        labels += named
    return labels


def _lesions(root: Path, samples: DataFrame) -> list[str]:
    """Return the lesion of each image, or the image itself where that is unknown."""
    if not has_lesions(root):
        logger.warning("ISIC2018: without %s images of one lesion may be trained and validated on.", _LESIONS)
        return list(samples.patient_id)
    file = root / _LESIONS
    table = read_table(file, ("image", "lesion_id"), ("diagnosis_confirm_type",))
    refuse_duplicates(file, table, "image")
    for line, lesion in table.lesion_id.items():
        if not lesion:
            raise row_error(file, line, "has no lesion_id", "one")
    lesion_of = dict(zip(table.image, table.lesion_id, strict=True))
    names = samples.image_path.map(lambda path: Path(path).stem)
    unknown = int((~names.isin(lesion_of) & (samples.split == "train")).sum())
    if unknown:
        images = f"{counted(unknown, 'training image')} {agree(unknown, 'is', 'are')}"
        logger.warning("ISIC2018: %s not in %s, each is taken for a lesion.", images, file)
    return [lesion_of.get(name, own) for name, own in zip(names, samples.patient_id, strict=True)]


class ISIC2018(PublishedDataModule):
    """ISIC 2018, task 3: nevi against six other skin lesions.

    Both protocols train on the training set's nevi and test on the test set. A lesion is a patient.

    Its parameters are those of `PublishedDataModule`. ``download`` gets what is missing from the challenge's public
    storage.
    """

    source = SOURCE

    def prepare_data(self) -> None:
        """Download the dataset, and the file that says which images show one lesion, where that is wanted.

        Raises:
            DatasetNotFoundError: If it is not in the root.
            DownloadError: If the download fails.
        """
        super().prepare_data()
        if self.download and not has_lesions(self.root):
            download(LESION_FILE, self.root)

    def _is_there(self) -> bool:
        return is_isic2018(self.root)

    def _make_samples(self) -> DataFrame:
        return make_isic2018_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
