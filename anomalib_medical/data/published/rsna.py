"""RSNA Pneumonia Detection Challenge (2018): chest X-rays, normal or with lung opacity."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pandas import DataFrame

from anomalib_medical.data.checks import (
    check_values,
    json_error,
    parse_numbers,
    read_json,
    read_table,
    refuse_changes,
    refuse_rows,
    require_images,
)
from anomalib_medical.data.download import zenodo_archive
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.chest import Box, add_boxes, read_headers
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol
from anomalib_medical.data.published.layouts import image_names, image_row
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted

logger = logging.getLogger(__name__)

_FOLDER = "stage_2_train_images"
_BOXES_FILE = "stage_2_train_labels.csv"
_CLASSES_FILE = "stage_2_detailed_class_info.csv"
# Which NIH images, and so which patients, the challenge's images are.
_MAPPING_FILE = "pneumonia-challenge-dataset-mappings_2018.json"
_MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{_MAPPING_FILE}"
_MAPPING = f'[{{"subset_img_id": "<challenge id>", "img_id": "00000001_000.png", ...}}, ...] from {_MAPPING_URL}'
ABOUT = PublishedSet(
    name="RSNA",
    title="The RSNA Pneumonia Detection Challenge",
    url="https://www.rsna.org/artificial-intelligence/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
    licence="the challenge's terms of use: academic research and education, no commercial use",
    access="Kaggle (rsna-pneumonia-detection-challenge, with an account) for DICOM and the CSV files; or the prepared "
    "images of MedIAnomaly, https://zenodo.org/records/12677223 (RSNA.tar.gz, no account)",
    tree=f"""
  <root>/{_FOLDER}/*.dcm
  <root>/{_CLASSES_FILE}
  <root>/{_BOXES_FILE}
or
  <root>/images/*.png (or train_png_512/*.png)
  <root>/data.json
  <root>/{_BOXES_FILE}  optional: boxes
and optionally, to keep patients apart,
  <root>/{_MAPPING_FILE} ({_MAPPING_URL})
  <root>/Data_Entry_2017.csv  optional: NIH's list, for the views of PNG files""",
    original=((_FOLDER,), (_CLASSES_FILE,), (_BOXES_FILE,)),
    prepared=("images", "train_png_512"),
    counts=PublishedCounts(
        train=3851, test_normal=1000, test_abnormal=1000, unlabeled_normal=4000, unlabeled_abnormal=5012
    ),
    no_split="It comes with the prepared images (data.json), see https://zenodo.org/records/12677223.",
    archives=(zenodo_archive("12677223", "RSNA.tar.gz", marker="data.json"),),
)
_OPAQUE = "Lung Opacity"
_LABELS = {"Normal": NORMAL_CLASS, _OPAQUE: "lung_opacity"}
_LEFT_OUT = "No Lung Opacity / Not Normal"
# Height and width of the challenge's DICOM files, on which the boxes were drawn.
_DRAWN_ON = (1024.0, 1024.0)


def make_rsna_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    mapping_file: str | Path | None = None,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the images that are normal or have lung opacity; those that are neither are left out, as in the papers.

    There are boxes where they are known, and meta_* (view, ...). ``mapping_file`` is RSNA's mapping to NIH's images,
    which tells the patients; by default the file of its name in ``root``, if it is there. The other arguments, outcome
    and errors are those of `apply_protocol`.
    """
    root = Path(root)
    samples = ABOUT.samples_in(root, _list_dicom)
    if "boxes" not in samples and (root / _BOXES_FILE).is_file():
        samples = _add_boxes(samples, root)
    samples = _add_patients(samples, root, mapping_file)
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_dicom(root: Path) -> DataFrame:
    file = root / _CLASSES_FILE
    # An image has a row for each of its boxes.
    table = read_table(file, ("patientId", "class"))
    check_values(file, table, "class", (*_LABELS, _LEFT_OUT))
    refuse_changes(file, table, "patientId", "class")
    classes = dict(zip(table["patientId"], table["class"], strict=True))
    paths = {image: root / _FOLDER / f"{image}.dcm" for image in sorted(classes) if classes[image] != _LEFT_OUT}
    require_images(file, root / _FOLDER, paths.values())
    logger.info("RSNA: left out %d of %s: %s.", len(classes) - len(paths), counted(len(classes), "image"), _LEFT_OUT)
    samples = DataFrame([image_row(path, _LABELS[classes[image]], image) for image, path in paths.items()])
    # A header's PatientID is the image's id again.
    _, metadata = read_headers(list(paths.values()))
    return _add_boxes(samples.join(metadata), root, classes)


def _add_boxes(samples: DataFrame, root: Path, classes: dict[str, str] | None = None) -> DataFrame:
    """Add the challenge's boxes; the classes, where they are known, must agree."""
    file = root / _BOXES_FILE
    sides = ["x", "y", "width", "height"]
    table = read_table(file, ("patientId", *sides, "Target"))
    check_values(file, table, "Target", ("0", "1"))
    if classes is not None:
        named = table.assign(named=table["patientId"].map(classes).fillna("unknown"))
        wrong = (named["named"] == _OPAQUE) != (named["Target"] == "1")
        found = f"has the Target {{Target}}, while {_CLASSES_FILE} has the class {{named!r}}"
        refuse_rows(file, named, wrong, found, f"Target 1 for {_OPAQUE} and for nothing else")
        if absent := set(classes).difference(table["patientId"]):
            images = f"{counted(len(absent), 'image')} of {_CLASSES_FILE}"
            msg = f"{file} has no row for {images}, such as {min(absent)}. Get both again."
            raise MedicalError(msg)
    refuse_changes(file, table, "patientId", "Target")
    drawn = table[table["Target"] == "1"]
    if repeated := int(drawn.duplicated().sum()):
        stand = agree(repeated, "stands there twice and is", "stand there twice and are")
        logger.info("%s: %s %s taken once.", file, counted(repeated, "box", "boxes"), stand)
        drawn = drawn.drop_duplicates()
    numbers = parse_numbers(file, drawn, sides)
    flat = (numbers.width <= 0) | (numbers.height <= 0)
    refuse_rows(file, drawn, flat, "has a box without area", "a width and height above 0")
    boxes: dict[str, list[Box]] = {}
    for image, (x, y, width, height) in zip(drawn["patientId"], numbers.to_numpy(), strict=True):
        boxes.setdefault(image, []).append((x, y, width, height))
    return add_boxes(samples, boxes, dict.fromkeys(boxes, _DRAWN_ON))


def _add_patients(samples: DataFrame, root: Path, mapping_file: str | Path | None) -> DataFrame:
    file = root / _MAPPING_FILE if mapping_file is None else Path(mapping_file)
    if mapping_file is None and not file.is_file():
        logger.warning(
            "RSNA: without %s patients are unknown, since the challenge's patientId is an image's id. Patients of the "
            "test may have images in training: of the abnormal test images in the papers' split 70%% do.",
            _MAPPING_FILE,
        )
        return samples
    images = image_names(samples)
    names = images.map(_read_mapping(file))
    if names.isna().any():
        absent = images[names.isna()]
        msg = (
            f"{file} lacks {len(absent)} of {counted(len(images), 'image')}, such as {absent.iloc[0]}, so that "
            f"patients are unknown. Get the complete file from {_MAPPING_URL}"
        )
        raise MedicalError(msg)
    samples = samples.assign(patient_id=names.map(_nih_patient))
    if "meta_view" not in samples:
        # NIH's own list knows the views, where a copy of it lies in the root.
        for views in sorted(root.glob("Data_Entry_2017*.csv"))[:1]:
            table = read_table(views, ("Image Index", "View Position"), optional=None)
            view_of = dict(zip(table["Image Index"], table["View Position"], strict=True))
            samples = samples.assign(meta_view=names.map(view_of).fillna(""))
    return samples


def _read_mapping(file: Path) -> dict[str, str]:
    """Return the NIH file name (such as ``00000001_000.png``) of each of the challenge's images."""
    entries = read_json(file, _MAPPING)
    if not isinstance(entries, list):
        raise json_error(file, f"it is {type(entries).__name__}, not a list", _MAPPING)
    names: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        of_entry = entry if isinstance(entry, dict) else {}
        image, name = of_entry.get("subset_img_id"), of_entry.get("img_id")
        if not isinstance(image, str) or not isinstance(name, str) or not _nih_patient(name).isdigit():
            found = f"its entry {number} lacks a subset_img_id, or an img_id that starts with a number"
            raise json_error(file, found, _MAPPING)
        if names.setdefault(image, name) != name:
            raise json_error(file, f"its entry {number} maps an image a second time, to another", _MAPPING)
    return names


def _nih_patient(name: str) -> str:
    """Return the patient's number, which an NIH file name starts with."""
    return name.partition("_")[0]


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

    about = ABOUT

    def __init__(
        self,
        root: str | Path | None = None,
        mapping_file: str | Path | None = None,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.mapping_file = mapping_file

    def _make_samples(self) -> DataFrame:
        return make_rsna_dataset(
            self.root,
            self.protocol,
            mapping_file=self.mapping_file,
            deduplicate=self.deduplicate,
            seed=self._split_seed,
        )
