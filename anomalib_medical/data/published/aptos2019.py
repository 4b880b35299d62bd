"""APTOS 2019: fundus images without and with diabetic retinopathy."""

from __future__ import annotations

import logging
import random
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.checks import check_values, read_table
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.class_folders import image_row, images_named
from anomalib_medical.data.published.data_json import find_prepared, read_data_json
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import NO_SPLIT, Protocol, PublishedCounts, apply_protocol
from anomalib_medical.data.published.source import DatasetSource

logger = logging.getLogger(__name__)

SOURCE = DatasetSource(
    title="APTOS 2019 Blindness Detection",
    url="https://www.kaggle.com/competitions/aptos2019-blindness-detection/data",
    licence="the competition's rules, accepted on Kaggle",
    access="download with a Kaggle account that joined the competition",
    tree="""
  <root>/train_images/*.png
  <root>/train.csv (id_code, diagnosis)
or, with a split of your own,
  <root>/images/*.png
  <root>/data.json""",
)
COUNTS = PublishedCounts(train=1000, test_normal=805, test_abnormal=1857)
_GRADES = ("0", "1", "2", "3", "4")
_PAPERS_SEED = 1


def is_aptos2019(root: Path) -> bool:
    """Whether a folder holds the dataset in a layout that is understood."""
    return find_prepared(root) is not None or (root / "train.csv").is_file()


def make_aptos2019_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the images of the competition's training set: grade 0 is normal, 1 to 4 are abnormal.

    The papers train on the first 1000 images of grade 0, shuffled with seed 1, and test on all others. We assume the
    way in which ReContrast prepares the set: Python's ``random`` shuffles them from the order of ``train.csv``. We
    have not compared the outcome with the papers' files, which are unreleased, and we do not crop the images as
    ReContrast does. Where ``train.csv`` is not complete, ``"clean"`` divides in the papers' proportions.

    Patients are unknown: every image is taken for one.

    Args:
        root: The dataset's folder.
        protocol: ``"clean"`` or ``"published"``.
        deduplicate: Whether near-duplicates count as one patient.
        seed: Decides the split where the papers' is impossible.

    Returns:
        Columns as `MedicalDataset` has them; ``attrs["task"]``.

    Raises:
        DatasetNotFoundError: If the dataset is not there.
        FileNotFoundError: If an image is missing.
        TableError: If ``train.csv`` cannot be used; the message names the row.
        ProtocolError: If ``"published"`` cannot be had.
    """
    root = Path(root)
    if not is_aptos2019(root):
        raise SOURCE.not_found(root)
    layout = find_prepared(root)
    samples = _list_graded(root) if layout is None else read_data_json(layout)
    return apply_protocol(
        samples,
        name="APTOS2019",
        counts=COUNTS,
        protocol=protocol,
        deduplicate=deduplicate,
        seed=seed,
        no_split=f"The papers divide the complete set ({COUNTS}); train.csv lists another number of images.",
    )


def _list_graded(root: Path) -> DataFrame:
    file = root / "train.csv"
    table = read_table(file, ("id_code", "diagnosis"))
    check_values(file, table, "diagnosis", _GRADES)
    paths = images_named(file, table, "id_code", root / "train_images", ".png")
    labels = [NORMAL_CLASS if grade == "0" else f"grade {grade}" for grade in table.diagnosis]
    rows = [image_row(path, root, label) for path, label in zip(paths, labels, strict=True)]
    return DataFrame(rows).assign(split=_papers_split(list(table.id_code), labels))


def _papers_split(names: list[str], labels: list[str]) -> list[str]:
    """Divide in the papers' way where the set is complete."""
    normal = [name for name, label in zip(names, labels, strict=True) if label == NORMAL_CLASS]
    if (len(normal), len(names)) != (
        COUNTS.train + COUNTS.test_normal,
        COUNTS.train + COUNTS.test_normal + COUNTS.test_abnormal,
    ):
        return [NO_SPLIT] * len(names)
    random.Random(_PAPERS_SEED).shuffle(normal)  # noqa: S311 # the papers' order, no secret
    train = set(normal[: COUNTS.train])
    logger.info("APTOS2019: the papers' split was computed from train.csv; it could not be compared with their files.")
    return ["train" if name in train else "test" for name in names]


class APTOS2019(PublishedDataModule):
    """APTOS 2019: fundus images without and with diabetic retinopathy.

    Both protocols compute the papers' split (1000 images of grade 0, shuffled with seed 1, for training), in a way that
    we could not compare with the papers' files; see ``make_aptos2019_dataset``.

    Its parameters are those of `PublishedDataModule`.
    """

    source = SOURCE

    def _is_there(self) -> bool:
        return is_aptos2019(self.root)

    def _make_samples(self) -> DataFrame:
        return make_aptos2019_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
