"""An audit's results as plain text, and as a folder of JSON, CSV and a page. Patients appear as salted hashes only."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from pandas import DataFrame
from PIL import Image

from anomalib_medical.data.images import read_image
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.data.samples import METADATA
from anomalib_medical.io import ImageAddress, Window, counted, finite_or_none, numbered, readable

from .advice import advice_on
from .audit import AuditReport
from .shortcuts import Shortcut

# Each pair takes about 15 kB of the page.
_SHOWN_PAIRS = 60
_SHOWN_FILES = 100
_THUMBNAIL = 224
_VALUES = ("lowest values", "highest values")
_CATEGORIES = ("categories of the normal images", "categories of the abnormal images")
_MEANS = {"higher": "higher values", "lower": "lower values", "learnt": "other categories"}


def format_report(report: AuditReport, name: str) -> str:
    """Return the tables that the command line prints."""
    blocks = [
        f"Audit of {name}: {counted(len(report.samples), 'image')} read, {len(report.unreadable)} unreadable",
        report.counts().to_string(index=False),
    ]
    if report.shortcuts:
        width = max(len(shortcut.name) for shortcut in report.shortcuts)
        head = f"{'Shortcut to the label':{width}}  AUROC [95% interval]   abnormal images have"
        rows = [f"{each.name:{width}}  {each.estimate!s:21}  {_MEANS[each.direction]}" for each in report.shortcuts]
        blocks.append("\n".join([head, *rows]))
    shared = [str(each) for each in (*report.overlaps, *report.duplicates)]
    blocks.append("\n".join(["Between splits", *(shared or ["no shared patients, no duplicates"])]))
    if report.notes:
        blocks.append("\n".join(["Notes", *(f"- {note}" for note in report.notes)]))
    verdict = counted(len(report.findings), "finding") if report.findings else "Nothing above the limits."
    blocks.append("\n".join([verdict, *(f"- {finding.message}" for finding in report.findings)]))
    return "\n\n".join(blocks)


def claim_folder(wanted: Path) -> Path:
    """Make ``wanted``, or the first free of ``wanted_1``, ``wanted_2``, ... where it holds something already."""
    names = (numbered(wanted.parent, wanted.name, number) for number in itertools.count())
    folder = next(name for name in names if not name.exists() or not any(name.iterdir()))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_report(
    report: AuditReport, folder: Path, name: str, window: Window | None = None, *, hash_paths: bool = False
) -> None:
    """Write report.json, findings.csv, pairs.csv, features.csv and index.html to an empty folder.

    `window` is how the page shows DICOM and NIfTI files; with `hash_paths`, salted hashes stand in place of paths.
    """
    hasher = PatientHasher(folder)
    images = list(report.samples.image_path)
    if hash_paths:
        report = _without_paths(report, hasher)
    samples = report.samples.assign(patient=[hasher.hash(patient) for patient in report.samples.patient_id])
    pairs = _pairs(report, samples)
    # What meta_* columns hold may be a name or a date: it stays where it is.
    hidden = {"patient_id", "mask_path"}
    shown = [column for column in map(str, samples) if column not in hidden and not column.startswith(METADATA)]
    tables = {
        "findings": DataFrame(_findings(report), columns=["check", "value", "limit", "message"]),
        "pairs": pairs,
        "features": samples[shown],
    }
    for stem, table in tables.items():
        table.to_csv(folder / f"{stem}.csv", index=False, errors="backslashreplace")
    summary = _for_json({"data": name, **_summary(report)})
    (folder / "report.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    page = _page(report, pairs, name, images, window, hashed=hash_paths)
    (folder / "index.html").write_text(page, "utf-8", errors="backslashreplace")


def _without_paths(report: AuditReport, hasher: PatientHasher) -> AuditReport:
    """Put hashes in place of paths; of a slice or frame the place in its file stays."""

    def hashed(path: str) -> str:
        address = ImageAddress.parse(path)
        return str(replace(address, path=Path(hasher.hash(str(address.path), kind="f"))))

    return replace(
        report,
        samples=report.samples.assign(image_path=[hashed(path) for path in report.samples.image_path]),
        unreadable=[replace(image, path=hashed(image.path)) for image in report.unreadable],
    )


def _pairs(report: AuditReport, samples: DataFrame) -> DataFrame:
    """A row a pair: kind, similarity, leak, and split, label, path and hashed patient of both images."""
    table = report.pairs[["kind", "similarity", "leak"]]
    for side in ("first", "second"):
        rows = samples.iloc[report.pairs[side]].reset_index(drop=True)
        columns = {"split": "split", "label": "label", "image_path": "path", "patient": "patient"}
        table = table.assign(**{f"{side}_{short}": rows[column] for column, short in columns.items()})
    return table


def _findings(report: AuditReport) -> list[dict[str, Any]]:
    return [
        {"check": each.check, "value": each.value, "limit": each.limit, "message": each.message}
        for each in report.findings
    ]


def _summary(report: AuditReport) -> dict[str, Any]:
    return {
        "limits": asdict(report.limits),
        "findings": _findings(report),
        "notes": report.notes,
        "counts": report.counts().to_dict("records"),
        "patient_overlap": [asdict(overlap) for overlap in report.overlaps],
        "duplicates": [asdict(count) for count in report.duplicates],
        "shortcuts": [
            {"name": each.name, "auroc": each.auroc, "low": each.estimate.low, "high": each.estimate.high}
            | {"direction": each.direction, "p_value": each.p_value}
            for each in report.shortcuts
        ],
        "unreadable": [{"path": image.path, "message": str(image)} for image in report.unreadable],
        "seconds": {part: round(seconds, 2) for part, seconds in report.seconds.items()},
    }


def _for_json(value: object) -> object:
    """Replace what JSON does not know: nan by null, and names of files that are no text."""
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    if isinstance(value, str):
        return readable(value)
    return finite_or_none(value) if isinstance(value, float) else value


def _page(
    report: AuditReport, pairs: DataFrame, name: str, images: Sequence[str], window: Window | None, *, hashed: bool
) -> str:
    """One web page that needs no network; `images` says where each of the report's images can be read."""
    leaking = pairs[pairs.leak]
    shown = leaking.head(_SHOWN_PAIRS)
    rows = report.pairs.loc[shown.index, ["first", "second"]]
    shortcuts = [each.about for each in report.findings if isinstance(each.about, Shortcut)]
    of_shortcuts = [row for each in shortcuts for row in (*each.lowest, *each.highest)]
    pictures = {row: _picture(images[row], window) for row in {*np.unique(rows).tolist(), *of_shortcuts}}
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=report,
        name=name,
        counts=report.counts().to_dict("records"),
        flagged=[finding.about for finding in report.findings],
        place=_place,
        pairs=shown.assign(**{f"{side}_picture": rows[side].map(pictures) for side in rows}).to_dict("records"),
        examples=[_example(each, report.samples, pictures) for each in shortcuts],
        n_leaking=len(leaking),
        n_images=counted(len(report.samples), "image"),
        n_findings=counted(len(report.findings), "finding"),
        unreadable=report.unreadable[:_SHOWN_FILES],
        hashed=hashed,
    )


def _example(shortcut: Shortcut, samples: DataFrame, pictures: Mapping[int, str]) -> dict[str, Any]:
    """What the page shows of a shortcut that was found: both its ends, and what can be done."""
    learnt = shortcut.direction == "learnt"
    titles = _CATEGORIES if learnt else _VALUES
    # What meta_* columns hold may be a name or a date.
    known = shortcut.name in samples and not shortcut.name.startswith(METADATA)
    values = samples[shortcut.name] if known else None

    def shown(row: int) -> dict[str, str]:
        value = (
            ""
            if values is None
            else str(values[row])
            if learnt
            else f"{values[row]:{',.0f' if values[row] >= 1000 else '.4g'}}"
        )
        sample = samples.iloc[row]
        return {"label": sample.label, "value": value, "path": sample.image_path, "picture": pictures[row]}

    ends = zip(titles, (shortcut.lowest, shortcut.highest), strict=True)
    return {
        "text": str(shortcut),
        "name": shortcut.name,
        "ends": [(title, list(map(shown, rows))) for title, rows in ends],
        "advice": advice_on(shortcut.name),
    }


def _place(auroc: float) -> float:
    """Where an AUROC lies on an axis from 0.5 to 1, in percent."""
    return round(200 * (min(max(auroc, 0.5), 1.0) - 0.5), 2)


def _picture(path: str, window: Window | None) -> str:
    """A small JPEG as the text of a data address."""
    pixels = read_image(path, window).permute(1, 2, 0).numpy()
    image = Image.fromarray((pixels * 255).round().astype(np.uint8))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode("ascii")
