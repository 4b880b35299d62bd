"""Camelyon16 as patches (HIS): lymph node tissue without and with metastases, in BMAD's layout."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.download import Archive
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.class_folders import image_row, list_class_folders
from anomalib_medical.data.published.data_json import find_prepared, read_data_json
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, apply_protocol
from anomalib_medical.data.published.source import DatasetSource
from anomalib_medical.data.samples import with_left_out
from anomalib_medical.io import Listing, agree, counted, list_folder

logger = logging.getLogger(__name__)

SOURCE = DatasetSource(
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
    # All six sets of BMAD, where anomalib's own datamodule has them from. We have not seen this archive.
    archives=(Archive("https://huggingface.co/datasets/code-dev05/BMAD/resolve/main/bmad.zip", "bmad.zip"),),
)
COUNTS = PublishedCounts(train=5088, test_normal=997, test_abnormal=1000)
_ABNORMAL = "Ungood"
_MASKS = "label"
# A slide's name in the name of a patch that was cut from it.
_SLIDE = re.compile(r"(?:normal|tumor|test)_\d{3}(?=[_-])")


def is_camelyon16(root: Path) -> bool:
    """Whether a folder holds the dataset in a layout that is understood."""
    return find_prepared(root) is not None or _base(root) is not None


def make_camelyon16_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the patches: ``good`` is normal, ``Ungood`` shows a metastasis.

    BMAD's ``valid`` is left out, as in the papers: its labelled anomalies would fit the threshold. A slide
    (``normal_001``, ``tumor_001``, ``test_001`` in the file's name, before the patch's number or place) is a patient;
    BMAD's own names do not say it, there every patch is taken for a patient.

    Args:
        root: The dataset's folder, or that of all of BMAD's sets.
        protocol: ``"clean"`` or ``"published"``.
        deduplicate: Whether near-duplicates count as one patient.
        seed: Has no effect on the split, which the files give.

    Returns:
        Columns as `MedicalDataset` has them; ``attrs["task"]``.

    Raises:
        DatasetNotFoundError: If the dataset is not there.
        FileNotFoundError: If a class has no images, or ``data.json`` names absent ones.
        ClassFolderError: If a folder's label is unknown.
        ProtocolError: If ``"published"`` cannot be had.
    """
    root = Path(root)
    layout, base = find_prepared(root), _base(root)
    if layout is not None:
        samples = read_data_json(layout)
    elif base is not None:
        samples = _list_patches(base)
    else:
        raise SOURCE.not_found(root)
    return apply_protocol(
        samples.assign(patient_id=_slides(samples)),
        name="Camelyon16",
        counts=COUNTS,
        protocol=protocol,
        deduplicate=deduplicate,
        seed=seed,
    )


def _base(root: Path) -> Path | None:
    return next((folder for folder in (root, root / "Histopathology") if (folder / "train").is_dir()), None)


def _list_patches(base: Path) -> DataFrame:
    parts = {
        "train": list_class_folders(base / "train", (NORMAL_CLASS,)),
        "test": list_class_folders(base / "test", (NORMAL_CLASS, _ABNORMAL)),
    }
    rows = []
    listing = Listing()
    for part, classes in parts.items():
        for label, of_class in classes.items():
            listing += of_class
            paths = of_class.images
            folder = base / part / label
            masks = {path.stem: path for path in paths if path.is_relative_to(folder / _MASKS)}
            images = [path for path in paths if not path.is_relative_to(folder / _MASKS)]
            # A normal patch's mask is empty.
            used = masks if label == _ABNORMAL else {}
            rows += [image_row(path, base, label, split=part, mask=used.get(path.stem)) for path in images]
            if unused := set(masks) - {path.stem for path in images}:
                belong = agree(len(unused), "belongs", "belong")
                masks_in = f"{counted(len(unused), 'mask')} in {folder / _MASKS}"
                logger.warning("Camelyon16: %s %s to no image.", masks_in, belong)
    left_out = len([path for path in list_folder(base / "valid").images if path.parent.name != _MASKS])
    logger.info("Camelyon16: left out %s of valid/, as the papers do.", counted(left_out, "image"))
    return with_left_out(DataFrame(rows), listing, "Camelyon16")


def _slides(samples: DataFrame) -> list[str]:
    slides = [_SLIDE.search(Path(path).stem) for path in samples.image_path]
    unknown = slides.count(None)
    if unknown:
        logger.warning(
            "Camelyon16: %d of %s %s not name a slide: one slide may be in training and test.",
            unknown,
            counted(len(slides), "patch", "patches"),
            agree(unknown, "does", "do"),
        )
    return [own if slide is None else slide[0] for slide, own in zip(slides, samples.patient_id, strict=True)]


class Camelyon16(PublishedDataModule):
    """Camelyon16 as patches (HIS): tissue without and with metastases, as BMAD lays it out.

    Its parameters are those of `PublishedDataModule`. ``root`` may be the folder of all of BMAD's sets; ``download``
    gets them all.
    """

    source = SOURCE

    def _is_there(self) -> bool:
        return is_camelyon16(self.root)

    def _make_samples(self) -> DataFrame:
        return make_camelyon16_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
