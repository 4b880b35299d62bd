"""Camelyon16 as patches (HIS): lymph node tissue without and with metastases, in BMAD's layout."""

from __future__ import annotations

import logging
from pathlib import Path

from pandas import DataFrame, Series

from anomalib_medical.data.download import Archive
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol
from anomalib_medical.data.published.layouts import image_names, image_row, list_class_folders, own_patient
from anomalib_medical.data.samples import with_left_out
from anomalib_medical.io import Listing, agree, counted, list_folder

logger = logging.getLogger(__name__)

ABOUT = PublishedSet(
    name="Camelyon16",
    title="Camelyon16 as patches (BMAD's Histopathology)",
    url="https://github.com/DorisBao/BMAD",
    licence="CC BY-NC-SA 4.0",
    access="download BMAD from its page, or with anomalib's BMAD datamodule",
    tree="""
  <root>/train/good/*.png
  <root>/test/good/*.png
  <root>/test/Ungood/*.png
or, in test/, good/img/*.png and Ungood/{img,label}/*.png; or all of this in <root>/Histopathology; or
  <root>/images/*.png
  <root>/data.json""",
    original=(("train", "Histopathology/train"),),
    counts=PublishedCounts(train=5088, test_normal=997, test_abnormal=1000),
    # All six sets of BMAD, where anomalib's own datamodule has them from. We have not seen this archive.
    archives=(Archive("https://huggingface.co/datasets/code-dev05/BMAD/resolve/main/bmad.zip", "bmad.zip"),),
)
_ABNORMAL = "Ungood"
_CLASSES = {"train": (NORMAL_CLASS,), "test": (NORMAL_CLASS, _ABNORMAL)}
_MASKS = "label"
# A slide's name in the name of a patch that was cut from it.
_SLIDE = r"((?:normal|tumor|test)_\d{3})(?=[_-])"


def make_camelyon16_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = False, seed: int = 0
) -> DataFrame:
    """List the patches: ``good`` is normal, ``Ungood`` shows a metastasis.

    BMAD's ``valid`` is left out, as in the papers: its labelled anomalies would fit the threshold. A slide
    (``normal_001``, ``tumor_001``, ``test_001`` in the file's name, before the patch's number or place) is a patient;
    BMAD's own names do not say it, there every patch is taken for a patient.

    ``root`` may be the folder of all of BMAD's sets. The other arguments, outcome and errors are those of
    `apply_protocol`; the files give the split.
    """
    samples = ABOUT.samples_in(Path(root), _list_patches)
    samples = samples.assign(patient_id=_slides(samples))
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_patches(root: Path) -> DataFrame:
    base = root if (root / "train").exists() else root / "Histopathology"
    rows = []
    listing = Listing()
    for part, expected in _CLASSES.items():
        for label, of_class in list_class_folders(base / part, expected).items():
            listing += of_class
            folder = base / part / label / _MASKS
            masks = {path.stem: path for path in of_class.images if path.is_relative_to(folder)}
            images = [path for path in of_class.images if not path.is_relative_to(folder)]
            # A normal patch's mask is empty.
            used = masks if label == _ABNORMAL else {}
            rows += [
                image_row(path, label, own_patient(path, base), split=part, mask=used.get(path.stem)) for path in images
            ]
            if unused := len(masks.keys() - {path.stem for path in images}):
                masks_in = f"{counted(unused, 'mask')} in {folder}"
                logger.warning("Camelyon16: %s %s to no image.", masks_in, agree(unused, "belongs", "belong"))
    left_out = sum(path.parent.name != _MASKS for path in list_folder(base / "valid").images)
    logger.info("Camelyon16: left out %s of valid/, as the papers do.", counted(left_out, "image"))
    return with_left_out(DataFrame(rows), listing, ABOUT.name)


def _slides(samples: DataFrame) -> Series[str]:
    slides = image_names(samples).str.extract(_SLIDE, expand=False)
    if unknown := int(slides.isna().sum()):
        logger.warning(
            "Camelyon16: %d of %s %s not name a slide: one slide may be in training and test.",
            unknown,
            counted(len(slides), "patch", "patches"),
            agree(unknown, "does", "do"),
        )
    return slides.fillna(samples.patient_id)


class Camelyon16(PublishedDataModule):
    """Camelyon16 as patches (HIS): tissue without and with metastases, as BMAD lays it out.

    Its parameters are those of `PublishedDataModule`. ``root`` may be the folder of all of BMAD's sets; ``download``
    gets them all.
    """

    about = ABOUT

    def _make_samples(self) -> DataFrame:
        return make_camelyon16_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
