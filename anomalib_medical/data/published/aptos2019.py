"""APTOS 2019: fundus images without and with diabetic retinopathy."""

from __future__ import annotations

import logging
import random
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.checks import check_values, read_table
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol
from anomalib_medical.data.published.layouts import NO_SPLIT, image_row, images_named, own_patient

logger = logging.getLogger(__name__)

_COUNTS = PublishedCounts(train=1000, test_normal=805, test_abnormal=1857)
ABOUT = PublishedSet(
    name="APTOS2019",
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
    original=(("train.csv",),),
    counts=_COUNTS,
    no_split=f"The papers divide the complete set ({_COUNTS}); train.csv lists another number of images.",
)
_GRADES = ("0", "1", "2", "3", "4")
_PAPERS_SEED = 1


def make_aptos2019_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = False, seed: int = 0
) -> DataFrame:
    """List the images of the competition's training set: grade 0 is normal, 1 to 4 are abnormal.

    The papers train on the first 1000 images of grade 0, shuffled with seed 1, and test on all others. We assume the
    way in which ReContrast prepares the set: Python's ``random`` shuffles them from the order of ``train.csv``. We
    have not compared the outcome with the papers' files, which are unreleased, and we do not crop the images as
    ReContrast does. Where ``train.csv`` is not complete, ``"clean"`` divides in the papers' proportions.

    Patients are unknown: every image is taken for one. Arguments, outcome and errors are those of `apply_protocol`.
    """
    samples = ABOUT.samples_in(Path(root), _list_graded)
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_graded(root: Path) -> DataFrame:
    file = root / "train.csv"
    table = read_table(file, ("id_code", "diagnosis"))
    check_values(file, table, "diagnosis", _GRADES)
    paths = images_named(file, table, "id_code", root / "train_images", ".png")
    labels = [NORMAL_CLASS if grade == "0" else f"grade {grade}" for grade in table.diagnosis]
    rows = [image_row(path, label, own_patient(path, root)) for path, label in zip(paths, labels, strict=True)]
    return DataFrame(rows).assign(split=_papers_split(table))


def _papers_split(table: DataFrame) -> list[str]:
    """Divide in the papers' way where the set is complete."""
    counts = ABOUT.counts
    normal = list(table.id_code[table.diagnosis == "0"])
    if (len(normal), len(table) - len(normal)) != (counts.train + counts.test_normal, counts.test_abnormal):
        return [NO_SPLIT] * len(table)
    random.Random(_PAPERS_SEED).shuffle(normal)  # noqa: S311 # the papers' order, no secret
    train = set(normal[: counts.train])
    logger.info("APTOS2019: the papers' split was computed from train.csv; it could not be compared with their files.")
    return ["train" if name in train else "test" for name in table.id_code]


class APTOS2019(PublishedDataModule):
    """APTOS 2019: fundus images without and with diabetic retinopathy.

    Both protocols compute the papers' split (1000 images of grade 0, shuffled with seed 1, for training), in a way that
    we could not compare with the papers' files; see ``make_aptos2019_dataset``.

    Its parameters are those of `PublishedDataModule`.
    """

    about = ABOUT

    def _make_samples(self) -> DataFrame:
        return make_aptos2019_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
