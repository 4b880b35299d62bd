"""RSNA Pneumonia Detection Challenge (2018): chest X-rays, normal or with lung opacity."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.checks import TableError, check_values, parse_numbers, read_table, require_images, row_error
from anomalib_medical.data.download import zenodo_archive
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.headers import read_headers
from anomalib_medical.data.published.boxes import Box, place_boxes
from anomalib_medical.data.published.data_json import find_prepared, read_data_json
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import NO_SPLIT, Protocol, PublishedCounts, apply_protocol
from anomalib_medical.data.published.rsna_mapping import (
    MAPPING_FILE,
    MAPPING_URL,
    MappingError,
    find_views,
    nih_patient,
    read_mapping,
)
from anomalib_medical.data.published.source import DatasetSource
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.io import agree, counted

logger = logging.getLogger(__name__)

PREPARED_FOLDERS = ("images", "train_png_512")
RAW_FOLDER = "stage_2_train_images"
BOXES_FILE = "stage_2_train_labels.csv"
CLASSES_FILE = "stage_2_detailed_class_info.csv"
RSNA_SOURCE = DatasetSource(
    title="The RSNA Pneumonia Detection Challenge",
    url="https://www.rsna.org/artificial-intelligence/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
    licence="the challenge's terms of use: academic research and education, no commercial use",
    access="Kaggle (rsna-pneumonia-detection-challenge, with an account) for DICOM and the CSV files; or the prepared "
    "images of MedIAnomaly, https://zenodo.org/records/12677223 (RSNA.tar.gz, no account)",
    tree=f"""
  <root>/{RAW_FOLDER}/*.dcm
  <root>/{CLASSES_FILE}
  <root>/{BOXES_FILE}
or
  <root>/images/*.png (or train_png_512/*.png)
  <root>/data.json
  <root>/{BOXES_FILE}  optional: boxes
and optionally, to keep patients apart,
  <root>/{MAPPING_FILE} ({MAPPING_URL})
  <root>/Data_Entry_2017.csv  optional: NIH's list, for the views of PNG files""",
    archives=(zenodo_archive("12677223", "RSNA.tar.gz", marker="data.json"),),
)
RSNA_COUNTS = PublishedCounts(
    train=3851, test_normal=1000, test_abnormal=1000, unlabeled_normal=4000, unlabeled_abnormal=5012
)
_LABELS = {"Normal": NORMAL_CLASS, "Lung Opacity": "lung_opacity"}
_LEFT_OUT = "No Lung Opacity / Not Normal"
# Height and width of the challenge's DICOM files, on which the boxes were drawn.
_DRAWN_ON = (1024.0, 1024.0)


def has_rsna(root: Path) -> bool:
    """Whether the root has one of the layouts."""
    return find_prepared(root, PREPARED_FOLDERS) is not None or _has_raw(root)


def make_rsna_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    mapping_file: str | Path | None = None,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the images that are normal or have lung opacity; those that are neither are left out, as in the papers.

    Args:
        root: Folder with the original or the prepared layout.
        protocol: ``"clean"`` or ``"published"``, see `apply_protocol`.
        mapping_file: RSNA's mapping to NIH's images, which tells the patients. Defaults to the file of its name in
            ``root``, if it is there.
        deduplicate: Whether near-duplicates count as one patient.
        seed: Decides the split of the original layout, which has none.

    Returns:
        The table that `MedicalDataset` reads from, with boxes where they are known, and meta_* (view, ...).

    Raises:
        DatasetNotFoundError: If the root has no such layout.
        TableError: If a CSV file cannot be used; the message names the line.
        DataJsonError: If ``data.json`` cannot be used.
        MappingError: If the mapping cannot be used.
        ProtocolError: If the published split cannot be had.
        FileNotFoundError: If an image or the mapping is missing.
    """
    root = Path(root)
    if layout := find_prepared(root, PREPARED_FOLDERS):
        samples = read_data_json(layout)
        if (root / BOXES_FILE).is_file():
            samples = _add_boxes(samples, _read_boxes(root / BOXES_FILE, None))
    elif _has_raw(root):
        samples = _read_raw(root)
    else:
        raise RSNA_SOURCE.not_found(root)
    return apply_protocol(
        _add_patients(samples, root, mapping_file),
        name="RSNA",
        counts=RSNA_COUNTS,
        protocol=protocol,
        deduplicate=deduplicate,
        seed=seed,
        no_split="It comes with the prepared images (data.json), see https://zenodo.org/records/12677223.",
    )


def _has_raw(root: Path) -> bool:
    return (root / RAW_FOLDER).is_dir() and (root / CLASSES_FILE).is_file() and (root / BOXES_FILE).is_file()


def _read_raw(root: Path) -> DataFrame:
    classes = _read_classes(root / CLASSES_FILE)
    boxes = _read_boxes(root / BOXES_FILE, classes)
    images = sorted(image for image, name in classes.items() if name != _LEFT_OUT)
    paths = [root / RAW_FOLDER / f"{image}.dcm" for image in images]
    require_images(root / CLASSES_FILE, root / RAW_FOLDER, paths)
    logger.info("RSNA: left out %d of %s: %s.", len(classes) - len(images), counted(len(classes), "image"), _LEFT_OUT)
    samples = DataFrame(
        {
            "image_path": [str(path) for path in paths],
            "split": NO_SPLIT,
            "label": [_LABELS[classes[image]] for image in images],
            "label_index": [int(classes[image] != "Normal") for image in images],
            "patient_id": images,
        }
    )
    # A header's PatientID is the image's id again.
    _, metadata = read_headers(samples.image_path.tolist())
    return _add_boxes(samples, boxes).join(metadata)


def _read_classes(file: Path) -> dict[str, str]:
    """Return each image's class; an image has a row for each of its boxes."""
    table = read_table(file, ("patientId", "class"))
    check_values(file, table, "class", (*_LABELS, _LEFT_OUT))
    classes: dict[str, str] = {}
    for line, image, name in zip(table.index, table["patientId"], table["class"], strict=True):
        if classes.setdefault(image, name) != name:
            raise row_error(file, line, f"gives {image} the class {name!r} after {classes[image]!r}", "one class each")
    return classes


def _read_boxes(file: Path, classes: dict[str, str] | None) -> dict[str, list[Box]]:
    """Return each image's boxes; the classes, where they are known, must agree."""
    sides = ["x", "y", "width", "height"]
    table = read_table(file, ("patientId", *sides, "Target"))
    check_values(file, table, "Target", ("0", "1"))
    targets: dict[str, str] = {}
    for line, image, target in zip(table.index, table["patientId"], table["Target"], strict=True):
        if targets.setdefault(image, target) != target:
            raise row_error(file, line, f"gives {image} the Target {target} after {targets[image]}", "one Target each")
        if classes is not None and (classes.get(image) == "Lung Opacity") != (target == "1"):
            found = f"has the Target {target}, while {CLASSES_FILE} has the class {classes.get(image)!r}"
            raise row_error(file, line, found, "Target 1 for Lung Opacity and for nothing else")
    if classes is not None and (absent := set(classes) - set(targets)):
        images = f"{counted(len(absent), 'image')} of {CLASSES_FILE}"
        msg = f"{file} has no row for {images}, such as {min(absent)}. Get both again."
        raise TableError(msg)
    drawn = table[table["Target"] == "1"]
    if repeated := int(drawn.duplicated().sum()):
        stand = agree(repeated, "stands there twice and is", "stand there twice and are")
        logger.info("%s: %s %s taken once.", file, counted(repeated, "box", "boxes"), stand)
    numbers = parse_numbers(file, drawn.drop_duplicates(), sides)
    wrong = numbers[(numbers.width <= 0) | (numbers.height <= 0)]
    if len(wrong):
        raise row_error(file, wrong.index[0], "has a box without area", "a width and height above 0")
    boxes: dict[str, list[Box]] = {}
    for image, (x, y, width, height) in zip(drawn.loc[numbers.index, "patientId"], numbers.to_numpy(), strict=True):
        boxes.setdefault(image, []).append((x, y, width, height))
    return boxes


def _add_boxes(samples: DataFrame, boxes: dict[str, list[Box]]) -> DataFrame:
    return samples.assign(
        boxes=[
            place_boxes(
                boxes.get(image, ()) if index == LabelName.ABNORMAL and split != UNLABELED else (), path, _DRAWN_ON
            )
            for image, path, index, split in zip(
                _image_ids(samples), samples.image_path, samples.label_index, samples.split, strict=True
            )
        ]
    )


def _image_ids(samples: DataFrame) -> Sequence[str]:
    return [Path(path).stem for path in samples.image_path]


def _add_patients(samples: DataFrame, root: Path, mapping_file: str | Path | None) -> DataFrame:
    file = root / MAPPING_FILE if mapping_file is None else Path(mapping_file)
    if mapping_file is None and not file.is_file():
        logger.warning(
            "RSNA: without %s patients are unknown, since the challenge's patientId is an image's id. Patients of the "
            "test may have images in training: of the abnormal test images in the papers' split 70%% do.",
            MAPPING_FILE,
        )
        return samples
    names = read_mapping(file)
    images = _image_ids(samples)
    if absent := [image for image in images if image not in names]:
        msg = (
            f"{file} lacks {len(absent)} of {counted(len(images), 'image')}, such as {absent[0]}, so that patients "
            f"are unknown. Get the complete file from {MAPPING_URL}"
        )
        raise MappingError(msg)
    samples = samples.assign(patient_id=[nih_patient(names[image]) for image in images])
    views = find_views(root)
    if views and "meta_view" not in samples:
        samples = samples.assign(meta_view=[views.get(names[image], "") for image in images])
    return samples


class RSNA(PublishedDataModule):
    """Chest X-rays of the RSNA Pneumonia Detection Challenge: normal, or with lung opacity and its boxes.

    The challenge's "patientId" is an image's id: only with RSNA's mapping to NIH's images are patients kept apart.

    Args:
        root: Folder with ``stage_2_train_images/*.dcm`` and the challenge's two CSV files; or with ``images/*.png`` and
            ``data.json``.
        mapping_file: ``pneumonia-challenge-dataset-mappings_2018.json``. Defaults to the file of its name in ``root``,
            if it is there.
        kwargs: As `PublishedDataModule` has them.
    """

    source = RSNA_SOURCE

    def __init__(
        self,
        root: str | Path | None = None,
        mapping_file: str | Path | None = None,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.mapping_file = mapping_file

    def _is_there(self) -> bool:
        return has_rsna(self.root)

    def _make_samples(self) -> DataFrame:
        return make_rsna_dataset(
            self.root,
            self.protocol,
            mapping_file=self.mapping_file,
            deduplicate=self.deduplicate,
            seed=self._split_seed,
        )
