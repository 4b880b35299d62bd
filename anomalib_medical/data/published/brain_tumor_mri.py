"""Brain Tumor MRI of Kaggle: slices without and with a tumour."""

from __future__ import annotations

import logging
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol
from anomalib_medical.data.published.layouts import image_row, list_class_folders, own_patient
from anomalib_medical.data.samples import with_left_out
from anomalib_medical.io import Listing, counted

logger = logging.getLogger(__name__)

_PARTS = ("Training", "Testing")
ABOUT = PublishedSet(
    name="BrainTumorMRI",
    title="Brain Tumor MRI",
    url="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
    licence="CC0",
    access="download with a Kaggle account",
    tree="""
  <root>/Training/{notumor,glioma,meningioma,pituitary}/*.jpg
  <root>/Testing/{notumor,glioma,meningioma,pituitary}/*.jpg
or, with the papers' split,
  <root>/images/*.jpg
  <root>/data.json""",
    original=(_PARTS,),
    counts=PublishedCounts(
        train=1000, test_normal=600, test_abnormal=600, unlabeled_normal=400, unlabeled_abnormal=600
    ),
    no_split="The papers' split is not that of Training and Testing: it is in data/BrainTumor/data.json of "
    "https://github.com/caiyu6666/DDAD-ASR. Put that file into the root and all images into images/ beside it.",
)
_LABELS = {"notumor": NORMAL_CLASS, "glioma": "glioma", "meningioma": "meningioma"}
_LEFT_OUT = "pituitary"


def make_brain_tumor_mri_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = True, seed: int = 0
) -> DataFrame:
    """List the images: ``notumor`` is normal, ``glioma`` and ``meningioma`` are abnormal.

    ``pituitary`` is left out, as in the papers. Kaggle's folders Training and Testing are taken as one set, as the
    papers do: 88% of the normal test images have a copy in Training. Without ``data.json`` only ``"clean"`` is
    possible, which divides anew. Arguments, outcome and errors are those of `apply_protocol`.
    """
    samples = ABOUT.samples_in(Path(root), _list_parts)
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_parts(root: Path) -> DataFrame:
    rows = []
    others = 0
    listing = Listing()
    for part in _PARTS:
        classes = list_class_folders(root / part, _LABELS, (_LEFT_OUT,))
        others += len(classes.pop(_LEFT_OUT).images)
        for name, of_class in classes.items():
            listing += of_class
            rows += [image_row(path, _LABELS[name], own_patient(path, root)) for path in of_class.images]
    logger.info("BrainTumorMRI: left out %s of %s tumours, as the papers do.", counted(others, "image"), _LEFT_OUT)
    return with_left_out(DataFrame(rows), listing, ABOUT.name)


class BrainTumorMRI(PublishedDataModule):
    """Brain Tumor MRI: slices without a tumour against gliomas and meningiomas.

    Kaggle's folders Training and Testing are taken as one set, as the papers do, and copies are found and count as one
    patient: 88% of the normal test images have one in Training. ``protocol="published"`` needs the papers'
    ``data.json``, which is public; the folders alone do not say it, and an error says where it is. Pituitary tumours
    are left out, as in the papers.

    Its parameters are those of `PublishedDataModule`, with ``deduplicate`` true by default.
    """

    about = ABOUT
    deduplicate_by_default = True

    def _make_samples(self) -> DataFrame:
        return make_brain_tumor_mri_dataset(
            self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed
        )
