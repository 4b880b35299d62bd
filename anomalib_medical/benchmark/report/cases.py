"""Pictures of best and worst cases."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from anomalib_medical.benchmark.records import GalleryEntry
from anomalib_medical.benchmark.report.results import Dataset, Model

_WIDTH = 420
_KINDS = {
    "false_positive": "false positive",
    "false_negative": "false negative",
    "true_positive": "true positive",
    "true_negative": "true negative",
}


@dataclass(frozen=True)
class GalleryPicture:
    """A picture of a case as the text of a data address."""

    kind: str
    score: str
    data: str


@dataclass(frozen=True)
class Gallery:
    """The cases of a model, the mistakes first."""

    title: str
    pictures: list[GalleryPicture]


def galleries(dataset: Dataset) -> list[Gallery]:
    """Take the pictures of each model's first seed."""
    return [found for model in dataset.models if (found := _gallery(model, dataset)) is not None]


def why_none(dataset: Dataset, wanted: object) -> str:
    """Why there are no pictures; ``wanted`` is the plan's ``gallery``."""
    if wanted == 0:
        return "No pictures of cases: the plan asked for none (gallery: 0)."
    if all(model.first.faults is None for model in dataset.models):
        return "No pictures of cases: no model here makes anomaly maps."
    return "No pictures of cases: this copy of the run folder holds none, as they show patients."


def _gallery(model: Model, dataset: Dataset) -> Gallery | None:
    training = model.first
    order = list(_KINDS)
    pictures = [
        picture
        for entry in sorted(training.folder.gallery, key=lambda entry: order.index(entry.kind))
        if (picture := _case(model, entry)) is not None
    ]
    return Gallery(f"{model.label} on {dataset.name}, seed {training.info.seed}", pictures) if pictures else None


def _case(model: Model, entry: GalleryEntry) -> GalleryPicture | None:
    file = model.first.folder.path / "gallery" / entry.file
    if not file.is_file():
        return None
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_WIDTH, _WIDTH))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return GalleryPicture(_KINDS[entry.kind], f"{entry.raw_score:.4g}", data)
