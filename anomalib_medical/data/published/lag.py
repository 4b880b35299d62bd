"""LAG, the large-scale attention-based glaucoma database: fundus images without and with suspected glaucoma."""

from __future__ import annotations

import logging
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.class_folders import ClassFolderError, image_row
from anomalib_medical.data.published.data_json import find_prepared, read_data_json
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, apply_protocol
from anomalib_medical.data.published.source import DatasetSource
from anomalib_medical.data.samples import with_left_out
from anomalib_medical.io import Listing, agree, counted, list_folder

logger = logging.getLogger(__name__)

SOURCE = DatasetSource(
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
)
COUNTS = PublishedCounts(train=1500, test_normal=811, test_abnormal=811, unlabeled_normal=832, unlabeled_abnormal=900)
_NO_SPLIT = (
    "The papers' split is in data/LAG/data.json of https://github.com/caiyu6666/DDAD-ASR. Put that file into the root "
    "and all images into images/ beside it."
)
# Folder: class, and what its label files say.
_CLASSES = {"non_glaucoma": (NORMAL_CLASS, "0"), "suspicious_glaucoma": ("glaucoma", "1")}


def is_lag(root: Path) -> bool:
    """Whether a folder holds the dataset in a layout that is understood."""
    return find_prepared(root) is not None or any((root / name).is_dir() for name in _CLASSES)


def make_lag_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the images: ``non_glaucoma`` is normal, ``suspicious_glaucoma`` abnormal.

    Attention maps show where ophthalmologists looked, in healthy eyes too: they are no masks of a lesion, and are kept
    in a column of their own. Patients are unknown: every image is taken for one.

    Args:
        root: The dataset's folder.
        protocol: ``"clean"`` or ``"published"`` (the prepared layout only).
        deduplicate: Whether near-duplicates count as one patient.
        seed: Decides the split where the files have none.

    Returns:
        Columns as `MedicalDataset` has them and, of the original layout, ``attention_map``; ``attrs["task"]``.

    Raises:
        DatasetNotFoundError: If the dataset is not there.
        FileNotFoundError: If a class has no images, or ``data.json`` names absent ones.
        ClassFolderError: If an image is in both classes.
        ProtocolError: If ``"published"`` cannot be had.
    """
    root = Path(root)
    if not is_lag(root):
        raise SOURCE.not_found(root)
    layout = find_prepared(root)
    samples = _list_classes(root) if layout is None else read_data_json(layout)
    return apply_protocol(
        samples, name="LAG", counts=COUNTS, protocol=protocol, deduplicate=deduplicate, seed=seed, no_split=_NO_SPLIT
    )


def _list_classes(root: Path) -> DataFrame:
    rows = []
    listing = Listing()
    for folder, (label, number) in _CLASSES.items():
        of_class = list_folder(root / folder / "image")
        listing += of_class
        images = of_class.images
        if not images:
            msg = f"No images in {root / folder / 'image'}; expected those of {folder}. Complete the data."
            raise FileNotFoundError(f"{msg} {of_class.left_out()}".strip())
        maps = {path.stem: path for path in list_folder(root / folder / "attention_map").images}
        rows += [{**image_row(path, root, label), "attention_map": str(maps.get(path.stem, ""))} for path in images]
        _compare_labels(root / folder / "label", images, number)
    samples = with_left_out(DataFrame(rows), listing, "LAG")
    _refuse_both(root, samples)
    return samples


def _refuse_both(root: Path, samples: DataFrame) -> None:
    """The two classes share one numbering."""
    names = samples.image_path.map(lambda path: Path(path).name)
    if names.duplicated().any():
        folders = " and ".join(f"{name}/image" for name in _CLASSES)
        msg = (
            f"The image {names[names.duplicated()].iloc[0]} is both in {folders} of {root}; expected each image in one "
            "of them. Remove the wrong one."
        )
        raise ClassFolderError(msg)


def _compare_labels(folder: Path, images: list[Path], expected: str) -> None:
    """Warn of label files that say something else than the folder they are in, which decides."""
    files = [folder / f"{path.stem}.txt" for path in images]
    texts = {file: file.read_text(encoding="utf-8", errors="replace").strip() for file in files if file.is_file()}
    other = [file for file, text in texts.items() if text != expected]
    if other:
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

    source = SOURCE

    def _is_there(self) -> bool:
        return is_lag(self.root)

    def _make_samples(self) -> DataFrame:
        return make_lag_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
