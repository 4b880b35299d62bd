"""VinDr-CXR: chest X-rays read by three radiologists each."""

from __future__ import annotations

from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.checks import (
    check_values,
    parse_numbers,
    read_table,
    refuse_duplicates,
    require_images,
    row_error,
)
from anomalib_medical.data.download import zenodo_archive
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.headers import read_headers
from anomalib_medical.data.published.boxes import Box, place_boxes
from anomalib_medical.data.published.data_json import find_prepared, read_data_json
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import NO_SPLIT, Protocol, PublishedCounts, apply_protocol
from anomalib_medical.data.published.source import DatasetSource
from anomalib_medical.data.samples import UNLABELED

KAGGLE_FILE = "train.csv"
PHYSIONET_FILE = "annotations/annotations_train.csv"
PHYSIONET_LABELS_FILE = "annotations/image_labels_train.csv"
SIZES_FILE = "train_meta.csv"
IMAGE_FOLDER = "train"
VINDR_SOURCE = DatasetSource(
    title="VinDr-CXR",
    url="https://physionet.org/content/vindr-cxr/",
    licence="PhysioNet Credentialed Health Data License, or the rules of the VinBigData competition on Kaggle",
    access="Kaggle (vinbigdata-chest-xray-abnormalities-detection, with an account) or PhysioNet (credentialed "
    "account) for DICOM; or the prepared images of MedIAnomaly, https://zenodo.org/records/12677223 (VinCXR.tar.gz, "
    "no account)",
    tree=f"""
  <root>/{IMAGE_FOLDER}/*.dicom
  <root>/{KAGGLE_FILE} (or {PHYSIONET_FILE} and {PHYSIONET_LABELS_FILE})
or, resized,
  <root>/{IMAGE_FOLDER}/*.png
  <root>/{KAGGLE_FILE}
  <root>/{SIZES_FILE}  image_id, dim0 (height) and dim1 (width) before resizing
or
  <root>/images/*.png
  <root>/data.json
  <root>/{KAGGLE_FILE} and {SIZES_FILE}  optional: boxes""",
    archives=(zenodo_archive("12677223", "VinCXR.tar.gz", marker="data.json"),),
)
VINDR_COUNTS = PublishedCounts(
    train=4000, test_normal=1000, test_abnormal=1000, unlabeled_normal=5606, unlabeled_abnormal=3394
)
_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg")
_DICOM_SUFFIXES = frozenset({".dicom", ".dcm"})
_CORNERS = ["x_min", "y_min", "x_max", "y_max"]
_NO_FINDING = "No finding"
_NO_FINDING_ID = "14"

_Sizes = dict[str, tuple[float, float]]


def has_vindr(root: Path) -> bool:
    """Whether the root has one of the layouts."""
    return find_prepared(root) is not None or _find_raw(root) is not None


def make_vindr_dataset(
    root: str | Path,
    protocol: Protocol = "clean",
    *,
    deduplicate: bool = False,
    seed: int = 0,
) -> DataFrame:
    """List the images of the training part (the other part's labels are not public).

    An image is normal if all its readers found nothing; else it is abnormal, with the boxes of all readers.

    Args:
        root: Folder with one of the layouts.
        protocol: ``"clean"`` or ``"published"``, see `apply_protocol`.
        deduplicate: Whether near-duplicates count as one patient.
        seed: Decides the split of the original layouts, which have none.

    Returns:
        The table that `MedicalDataset` reads from, with boxes where they are known, and meta_* of DICOM files.

    Raises:
        DatasetNotFoundError: If the root has no such layout.
        TableError: If a CSV file cannot be used; the message names the line.
        DataJsonError: If ``data.json`` cannot be used.
        ProtocolError: If the published split cannot be had.
        FileNotFoundError: If an image is missing, or the sizes before resizing.
    """
    root = Path(root)
    if layout := find_prepared(root):
        samples = read_data_json(layout)
        if (root / KAGGLE_FILE).is_file() and (root / SIZES_FILE).is_file():
            findings = _read_findings(root / KAGGLE_FILE)
            samples = _add_boxes(samples, findings, _read_sizes(root))
    elif file := _find_raw(root):
        samples = _read_raw(root, file)
    else:
        raise VINDR_SOURCE.not_found(root)
    return apply_protocol(
        samples,
        name="VinDrCXR",
        counts=VINDR_COUNTS,
        protocol=protocol,
        deduplicate=deduplicate,
        seed=seed,
        no_split="It comes with the prepared images (data.json), see https://zenodo.org/records/12677223.",
    )


def _find_raw(root: Path) -> Path | None:
    if not (root / IMAGE_FOLDER).is_dir():
        return None
    return next((root / name for name in (KAGGLE_FILE, PHYSIONET_FILE) if (root / name).is_file()), None)


def _read_raw(root: Path, file: Path) -> DataFrame:
    findings = _read_findings(file)
    if file == root / PHYSIONET_FILE:
        abnormal = {image for image, boxes in findings.items() if boxes} | _read_abnormal(root / PHYSIONET_LABELS_FILE)
    else:
        abnormal = {image for image, boxes in findings.items() if boxes}
    there = {path.stem: path for path in sorted((root / IMAGE_FOLDER).iterdir()) if path.suffix in _SUFFIXES}
    images = sorted(findings)
    suffix = next(iter(there.values()), Path(f"_{_SUFFIXES[0]}")).suffix
    paths = [there.get(image, root / IMAGE_FOLDER / f"{image}{suffix}") for image in images]
    require_images(file, root / IMAGE_FOLDER, paths)
    patients, metadata = read_headers([str(path) for path in paths])
    samples = DataFrame(
        {
            "image_path": [str(path) for path in paths],
            "split": NO_SPLIT,
            "label": ["finding" if image in abnormal else NORMAL_CLASS for image in images],
            "label_index": [int(image in abnormal) for image in images],
            "patient_id": [patient or image for patient, image in zip(patients, images, strict=True)],
        }
    ).join(metadata)
    resized = any(path.suffix not in _DICOM_SUFFIXES for path in paths)
    return _add_boxes(samples, findings, _read_sizes(root) if resized else None)


def _read_findings(file: Path) -> dict[str, list[Box]]:
    """Return the boxes of each image, of all readers; empty where all found nothing."""
    columns = ("image_id", "class_name", "rad_id", *_CORNERS)
    table = read_table(file, columns, optional=("class_id",))
    if "class_id" in table:
        check_values(file, table, "class_id", [str(number) for number in range(15)])
        disagree = table[(table.class_id == _NO_FINDING_ID) != (table.class_name == _NO_FINDING)]
        if len(disagree):
            row = disagree.iloc[0]
            what = f"has the class_id {row.class_id} with the class_name {row.class_name!r}"
            raise row_error(file, disagree.index[0], what, f"{_NO_FINDING_ID} for {_NO_FINDING!r} and nothing else")
    found = table[table.class_name != _NO_FINDING]
    corners = parse_numbers(file, found, _CORNERS)
    wrong = corners[(corners.x_max <= corners.x_min) | (corners.y_max <= corners.y_min)]
    if len(wrong):
        raise row_error(file, wrong.index[0], "has a box without area", "x_min below x_max, y_min below y_max")
    findings: dict[str, list[Box]] = {image: [] for image in table.image_id}
    for image, (left, top, right, bottom) in zip(found.image_id, corners.to_numpy(), strict=True):
        findings[image].append((left, top, right - left, bottom - top))
    return findings


def _read_abnormal(file: Path) -> set[str]:
    """Return the images in which a reader found something, be it without a box; empty without the file."""
    if not file.is_file():
        return set()
    table = read_table(file, ("image_id", "rad_id", _NO_FINDING), optional=None)
    none = parse_numbers(file, table, [_NO_FINDING])[_NO_FINDING]
    return set(table.image_id[none == 0])


def _read_sizes(root: Path) -> _Sizes:
    """Return (height, width) of each image before it was resized."""
    file = root / SIZES_FILE
    if not file.is_file():
        msg = (
            f"There is no {file}, and the images are not DICOM: boxes are in pixels of the DICOM files, so that the "
            "height (dim0) and width (dim1) of each image before resizing are needed. Get it with the resized images."
        )
        raise FileNotFoundError(msg)
    table = read_table(file, ("image_id", "dim0", "dim1"))
    refuse_duplicates(file, table, "image_id")
    sizes = parse_numbers(file, table, ["dim0", "dim1"])
    wrong = sizes[(sizes.dim0 <= 0) | (sizes.dim1 <= 0)]
    if len(wrong):
        raise row_error(file, wrong.index[0], "has a size that is not above 0", "the height and width in pixels")
    return {image: (height, width) for image, (height, width) in zip(table.image_id, sizes.to_numpy(), strict=True)}


def _add_boxes(samples: DataFrame, findings: dict[str, list[Box]], sizes: _Sizes | None) -> DataFrame:
    """Add the boxes; without sizes they are in the images' own pixels."""
    placed = []
    for path, index, split in zip(samples.image_path, samples.label_index, samples.split, strict=True):
        image = Path(path).stem
        boxes = findings.get(image, []) if index == LabelName.ABNORMAL and split != UNLABELED else []
        if boxes and sizes is not None and image not in sizes:
            msg = f"{SIZES_FILE} lacks the image {image}, which has boxes. Complete the file."
            raise FileNotFoundError(msg)
        placed.append(place_boxes(boxes, path, None if sizes is None else sizes.get(image)))
    return samples.assign(boxes=placed)


class VinDrCXR(PublishedDataModule):
    """Chest X-rays of VinDr-CXR: normal if all three readers found nothing, else abnormal with the boxes of all.

    The root holds ``train/*.dicom`` and ``train.csv``, PhysioNet's ``annotations/``, resized images with
    ``train_meta.csv``, or ``images/*.png`` and ``data.json``. Parameters are those of `PublishedDataModule`.
    """

    source = VINDR_SOURCE

    def _is_there(self) -> bool:
        return has_vindr(self.root)

    def _make_samples(self) -> DataFrame:
        return make_vindr_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
