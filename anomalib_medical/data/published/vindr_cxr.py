"""VinDr-CXR: chest X-rays read by three radiologists each."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.checks import (
    check_values,
    parse_numbers,
    read_table,
    refuse_duplicates,
    refuse_rows,
    require_images,
)
from anomalib_medical.data.download import zenodo_archive
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.chest import Box, Size, add_boxes, read_headers
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol, first_there
from anomalib_medical.data.published.layouts import image_names, image_row

_FOLDER = "train"
_KAGGLE_FILE = "train.csv"
_PHYSIONET_FILE = "annotations/annotations_train.csv"
_PHYSIONET_LABELS_FILE = "annotations/image_labels_train.csv"
_TABLES = (_KAGGLE_FILE, _PHYSIONET_FILE)
_SIZES_FILE = "train_meta.csv"
ABOUT = PublishedSet(
    name="VinDrCXR",
    title="VinDr-CXR",
    url="https://physionet.org/content/vindr-cxr/",
    licence="PhysioNet Credentialed Health Data License, or the rules of the VinBigData competition on Kaggle",
    access="Kaggle (vinbigdata-chest-xray-abnormalities-detection, with an account) or PhysioNet (credentialed "
    "account) for DICOM; or the prepared images of MedIAnomaly, https://zenodo.org/records/12677223 (VinCXR.tar.gz, "
    "no account)",
    tree=f"""
  <root>/{_FOLDER}/*.dicom
  <root>/{_KAGGLE_FILE} (or {_PHYSIONET_FILE} and {_PHYSIONET_LABELS_FILE})
or, resized,
  <root>/{_FOLDER}/*.png
  <root>/{_KAGGLE_FILE}
  <root>/{_SIZES_FILE}  image_id, dim0 (height) and dim1 (width) before resizing
or
  <root>/images/*.png
  <root>/data.json
  <root>/{_KAGGLE_FILE} and {_SIZES_FILE}  optional: boxes""",
    original=((_FOLDER,), _TABLES),
    counts=PublishedCounts(
        train=4000, test_normal=1000, test_abnormal=1000, unlabeled_normal=5606, unlabeled_abnormal=3394
    ),
    no_split="It comes with the prepared images (data.json), see https://zenodo.org/records/12677223.",
    archives=(zenodo_archive("12677223", "VinCXR.tar.gz", marker="data.json"),),
)
_DICOM_SUFFIXES = (".dicom", ".dcm")
_SUFFIXES = (*_DICOM_SUFFIXES, ".png", ".jpg")
_CORNERS = ["x_min", "y_min", "x_max", "y_max"]
_NO_FINDING = "No finding"
_NO_FINDING_ID = "14"


def make_vindr_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = False, seed: int = 0
) -> DataFrame:
    """List the images of the training part (the other part's labels are not public).

    An image is normal if all its readers found nothing; else it is abnormal, with the boxes of all readers. There are
    boxes where they are known, and meta_* of DICOM files. Arguments, outcome and errors are those of `apply_protocol`.
    """
    root = Path(root)
    samples = ABOUT.samples_in(root, _list_read)
    if "boxes" not in samples and (root / _KAGGLE_FILE).is_file() and (root / _SIZES_FILE).is_file():
        samples = _add_boxes(samples, _read_findings(root / _KAGGLE_FILE), _read_sizes(root))
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_read(root: Path) -> DataFrame:
    file = first_there(root, _TABLES)
    findings = _read_findings(file)
    abnormal = {image for image, boxes in findings.items() if boxes}
    if file == root / _PHYSIONET_FILE:
        abnormal |= _read_abnormal(root / _PHYSIONET_LABELS_FILE)
    there = {path.stem: path for path in sorted((root / _FOLDER).iterdir()) if path.suffix in _SUFFIXES}
    images = sorted(findings)
    suffix = next((path.suffix for path in there.values()), _SUFFIXES[0])
    paths = [there.get(image, root / _FOLDER / f"{image}{suffix}") for image in images]
    require_images(file, root / _FOLDER, paths)
    patients, metadata = read_headers(paths)
    rows = [
        image_row(path, "finding" if image in abnormal else NORMAL_CLASS, patient or image)
        for path, image, patient in zip(paths, images, patients, strict=True)
    ]
    resized = any(path.suffix not in _DICOM_SUFFIXES for path in paths)
    return _add_boxes(DataFrame(rows).join(metadata), findings, _read_sizes(root) if resized else None)


def _read_findings(file: Path) -> dict[str, list[Box]]:
    """Return the boxes of each image, of all readers; empty where all found nothing."""
    table = read_table(file, ("image_id", "class_name", "rad_id", *_CORNERS), optional=("class_id",))
    if "class_id" in table:
        check_values(file, table, "class_id", [str(number) for number in range(15)])
        disagree = (table.class_id == _NO_FINDING_ID) != (table.class_name == _NO_FINDING)
        found = "has the class_id {class_id} with the class_name {class_name!r}"
        refuse_rows(file, table, disagree, found, f"{_NO_FINDING_ID} for {_NO_FINDING!r} and nothing else")
    seen = table[table.class_name != _NO_FINDING]
    corners = parse_numbers(file, seen, _CORNERS)
    flat = (corners.x_max <= corners.x_min) | (corners.y_max <= corners.y_min)
    refuse_rows(file, seen, flat, "has a box without area", "x_min below x_max, y_min below y_max")
    findings: dict[str, list[Box]] = {image: [] for image in table.image_id}
    for image, (left, top, right, bottom) in zip(seen.image_id, corners.to_numpy(), strict=True):
        findings[image].append((left, top, right - left, bottom - top))
    return findings


def _read_abnormal(file: Path) -> set[str]:
    """Return the images in which a reader found something, be it without a box; empty without the file."""
    if not file.is_file():
        return set()
    table = read_table(file, ("image_id", "rad_id", _NO_FINDING), optional=None)
    none = parse_numbers(file, table, [_NO_FINDING])[_NO_FINDING]
    return set(table.image_id[none == 0])


def _read_sizes(root: Path) -> dict[str, Size]:
    """Return (height, width) of each image before it was resized."""
    file = root / _SIZES_FILE
    if not file.is_file():
        msg = (
            f"There is no {file}, and the images are not DICOM: boxes are in pixels of the DICOM files, so that the "
            "height (dim0) and width (dim1) of each image before resizing are needed. Get it with the resized images."
        )
        raise FileNotFoundError(msg)
    table = read_table(file, ("image_id", "dim0", "dim1"))
    refuse_duplicates(file, table, "image_id")
    sizes = parse_numbers(file, table, ["dim0", "dim1"])
    wrong = (sizes.dim0 <= 0) | (sizes.dim1 <= 0)
    refuse_rows(file, table, wrong, "has a size that is not above 0", "the height and width in pixels")
    return {image: (height, width) for image, (height, width) in zip(table.image_id, sizes.to_numpy(), strict=True)}


def _add_boxes(samples: DataFrame, findings: dict[str, list[Box]], sizes: dict[str, Size] | None) -> DataFrame:
    """Add the boxes; without sizes they are in the images' own pixels."""
    if sizes is not None:
        lacking = [image for image in image_names(samples) if findings.get(image) and image not in sizes]
        if lacking:
            msg = f"{_SIZES_FILE} lacks the image {lacking[0]}, which has boxes. Complete the file."
            raise FileNotFoundError(msg)
    return add_boxes(samples, findings, sizes)


class VinDrCXR(PublishedDataModule):
    """Chest X-rays of VinDr-CXR: normal if all three readers found nothing, else abnormal with the boxes of all.

    The root holds ``train/*.dicom`` and ``train.csv``, PhysioNet's ``annotations/``, resized images with
    ``train_meta.csv``, or ``images/*.png`` and ``data.json``. Parameters are those of `PublishedDataModule`.
    """

    about = ABOUT

    def _make_samples(self) -> DataFrame:
        return make_vindr_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
