"""Writes an audit's results: JSON, CSV and a page. Patients appear as salted hashes only, and files on request."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.audit.audit import AuditReport
from anomalib_medical.data.audit.page import render_page
from anomalib_medical.data.fingerprints import UnreadableImage
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.data.samples import METADATA
from anomalib_medical.io import ImageAddress, Window, readable


def claim_folder(wanted: Path) -> Path:
    """Make ``wanted``, or the first free of ``wanted_1``, ``wanted_2``, ... where it holds something already."""
    for number in itertools.count():
        folder = wanted.with_name(f"{wanted.name}_{number}") if number else wanted
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            return folder
    raise AssertionError  # the numbers do not end


def write_report(
    report: AuditReport, folder: Path, name: str, window: Window | None = None, *, hash_paths: bool = False
) -> None:
    """Write report.json, findings.csv, pairs.csv, features.csv and index.html.

    Args:
        report: The audit's results.
        folder: An empty folder, see `claim_folder`.
        name: Name of the data set.
        window: Which values of DICOM and NIfTI files become black and white on the page.
        hash_paths: Whether salted hashes take the place of the images' paths.
    """
    hasher = PatientHasher(folder)
    images = list(report.samples.image_path)
    if hash_paths:
        report = _without_paths(report, hasher)
    samples = report.samples.assign(patient=[hasher.hash(patient) for patient in report.samples.patient_id])
    pairs = list_pairs(report, samples)
    (folder / "report.json").write_text(
        json.dumps(_summary(report, name), indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    DataFrame([asdict(finding) for finding in report.findings], columns=["check", "value", "limit", "message"]).to_csv(
        folder / "findings.csv", index=False, errors="backslashreplace"
    )
    pairs.to_csv(folder / "pairs.csv", index=False, errors="backslashreplace")
    # What meta_* columns hold may be a name or a date: it stays where it is.
    hidden = {"patient_id", "mask_path"}
    shown = [column for column in map(str, samples) if column not in hidden and not column.startswith(METADATA)]
    features = samples[shown]
    features.to_csv(folder / "features.csv", index=False, errors="backslashreplace")
    page = render_page(report, pairs, name, images, window, hashed=hash_paths)
    (folder / "index.html").write_text(page, "utf-8", errors="backslashreplace")


def _without_paths(report: AuditReport, hasher: PatientHasher) -> AuditReport:
    """Put hashes in place of paths; of a slice or frame the place in its file stays."""

    def hashed(path: str) -> str:
        address = ImageAddress.parse(path)
        return str(replace(address, path=Path(hasher.hash(str(address.path), kind="f"))))

    # The longest first: a path may be the beginning of another.
    paths = sorted({str(ImageAddress.parse(image.path).path) for image in report.unreadable}, key=len, reverse=True)
    hashes = {path: hasher.hash(path, kind="f") for path in paths}

    def reworded(message: str) -> str:
        for path, digest in hashes.items():
            # Some messages quote it as Python writes it.
            for written in (path, repr(path)[1:-1]):
                message = message.replace(written, digest)
        return message

    return replace(
        report,
        samples=report.samples.assign(image_path=[hashed(path) for path in report.samples.image_path]),
        unreadable=[UnreadableImage(hashed(image.path), reworded(image.message)) for image in report.unreadable],
        findings=[replace(finding, message=reworded(finding.message)) for finding in report.findings],
    )


def list_pairs(report: AuditReport, samples: DataFrame) -> DataFrame:
    """Return a row a pair: kind, similarity, leak, and split, label, path and patient of both images.

    Args:
        report: The audit's results.
        samples: Its images, with the hashed ``patient``.
    """
    table = report.pairs[["kind", "similarity", "leak"]]
    for side in ("first", "second"):
        rows = samples.iloc[report.pairs[side]].reset_index(drop=True)
        columns = {"split": "split", "label": "label", "image_path": "path", "patient": "patient"}
        table = table.assign(**{f"{side}_{short}": rows[column] for column, short in columns.items()})
    return table


def _summary(report: AuditReport, name: str) -> dict[str, object]:
    summary = {
        "data": name,
        "limits": asdict(report.limits),
        "findings": [asdict(finding) for finding in report.findings],
        "notes": report.notes,
        "counts": report.counts().to_dict("records"),
        "patient_overlap": [asdict(overlap) for overlap in report.overlaps],
        "duplicates": [asdict(count) for count in report.duplicates],
        "shortcuts": [asdict(shortcut) for shortcut in report.shortcuts],
        "unreadable": [asdict(image) for image in report.unreadable],
        "seconds": {part: round(seconds, 2) for part, seconds in report.seconds.items()},
    }
    return {key: _for_json(value) for key, value in summary.items()}


def _for_json(value: object) -> object:
    """Replace what JSON does not know: nan by null, and names of files that are no text."""
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    if isinstance(value, str):
        return readable(value)
    return None if isinstance(value, float) and math.isnan(value) else value
