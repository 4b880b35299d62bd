"""LAG, the large-scale attention-based glaucoma database: fundus images without and with suspected glaucoma."""

from __future__ import annotations

import logging
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol
from anomalib_medical.data.published.layouts import image_row, list_images, own_patient
from anomalib_medical.data.samples import with_left_out
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Listing, agree, counted, list_folder

logger = logging.getLogger(__name__)

# Folder: class, and what its label files say.
_CLASSES = {"non_glaucoma": (NORMAL_CLASS, "0"), "suspicious_glaucoma": ("glaucoma", "1")}
ABOUT = PublishedSet(
    name="LAG",
    title="LAG",
    url="https://github.com/smilell/AG-CNN",
    licence="academic purposes only, no redistribution",
    access="on request from its authors",
    tree="""
  <root>/non_glaucoma/image/*.jpg
  <root>/suspicious_glaucoma/image/*.jpg
  and, optionally, attention_map/*.jpg and label/*.txt beside both image folders
or, with the papers' split,
  <root>/images/*.jpg
  <root>/data.json""",
    original=(tuple(_CLASSES),),
    counts=PublishedCounts(
        train=1500, test_normal=811, test_abnormal=811, unlabeled_normal=832, unlabeled_abnormal=900
    ),
    no_split="The papers' split is in data/LAG/data.json of https://github.com/caiyu6666/DDAD-ASR. Put that file into "
    "the root and all images into images/ beside it.",
)


def make_lag_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = False, seed: int = 0
) -> DataFrame:
    """List the images: ``non_glaucoma`` is normal, ``suspicious_glaucoma`` abnormal.

    Attention maps show where ophthalmologists looked, in healthy eyes too: they are no masks of a lesion, and are kept
    in a column of their own, ``attention_map``. Patients are unknown: every image is taken for one. ``"published"`` is
    possible with ``data.json`` only. Arguments, outcome and errors are those of `apply_protocol`.
    """
    samples = ABOUT.samples_in(Path(root), _list_classes)
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_classes(root: Path) -> DataFrame:
    rows = []
    listing = Listing()
    for folder, (label, number) in _CLASSES.items():
        of_class = list_images(root / folder / "image")
        listing += of_class
        maps = {path.stem: str(path) for path in list_folder(root / folder / "attention_map").images}
        rows += [
            {**image_row(path, label, own_patient(path, root)), "attention_map": maps.get(path.stem, "")}
            for path in of_class.images
        ]
        _compare_labels(root / folder / "label", of_class.images, number)
    samples = with_left_out(DataFrame(rows), listing, ABOUT.name)
    # The two classes share one numbering.
    names = samples.image_path.map(lambda path: Path(path).name)
    if names.duplicated().any():
        folders = " and ".join(f"{name}/image" for name in _CLASSES)
        msg = (
            f"The image {names[names.duplicated()].iloc[0]} is both in {folders} of {root}; expected each image in one "
            "of them. Remove the wrong one."
        )
        raise MedicalError(msg)
    return samples


def _compare_labels(folder: Path, images: list[Path], expected: str) -> None:
    """Warn of label files that say something else than the folder they are in, which decides."""
    files = [folder / f"{path.stem}.txt" for path in images]
    texts = {file: file.read_text(encoding="utf-8", errors="replace").strip() for file in files if file.is_file()}
    if other := [file for file, text in texts.items() if text != expected]:
        logger.warning(
            "LAG: %d of %s in %s %s not say %s, such as %s. The folder was taken for the label.",
            len(other),
            counted(len(texts), "label file"),
            folder,
            agree(len(other), "does", "do"),
            expected,
            other[0].name,
        )


class LAG(PublishedDataModule):
    """LAG: fundus images without and with suspected glaucoma.

    ``protocol="published"`` needs the papers' ``data.json``, which is public; an error says where it is. Attention maps
    are no masks.

    Its parameters are those of `PublishedDataModule`.
    """

    about = ABOUT

    def _make_samples(self) -> DataFrame:
        return make_lag_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
