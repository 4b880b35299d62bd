"""What the chest X-ray datasets share: boxes that become masks, and headers of DICOM files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame
from tqdm import tqdm

from anomalib_medical.data.patients import file_facts, identify_patients
from anomalib_medical.data.published.layouts import image_names
from anomalib_medical.data.samples import METADATA, UNLABELED
from anomalib_medical.io import image_size

# (left, top, width, height) in pixels.
Box = tuple[float, float, float, float]
# (height, width) in pixels.
Size = tuple[float, float]
# From here on somebody waits.
_MANY_FILES = 2000


def add_boxes(
    samples: DataFrame, boxes: Mapping[str, Sequence[Box]], drawn_on: Mapping[str, Size] | None = None
) -> DataFrame:
    """Add the column ``boxes``, JSON or ``""``; the unlabeled pool gets none.

    Images that were resized since their boxes were drawn come with the size on which these were ``drawn_on``.
    """
    shown = (samples.label_index == LabelName.ABNORMAL) & (samples.split != UNLABELED)
    placed = []
    for path, image, show in zip(samples.image_path, image_names(samples), shown, strict=True):
        of_image = boxes.get(image, ()) if show else ()
        y, x = 1.0, 1.0
        if of_image and drawn_on is not None:
            height, width = image_size(path)
            y, x = height / drawn_on[image][0], width / drawn_on[image][1]
        scaled = [[left * x, top * y, width * x, height * y] for left, top, width, height in of_image]
        placed.append(json.dumps(scaled) if scaled else "")
    return samples.assign(boxes=placed)


def read_headers(paths: Sequence[Path]) -> tuple[list[str | None], DataFrame]:
    """Read each file's patient, a pseudonym or None, and columns ``meta_*``; only DICOM says anything."""
    hidden = len(paths) < _MANY_FILES
    facts = [file_facts(path) for path in tqdm(paths, desc="Reading headers", unit="file", disable=hidden or None)]
    metadata = DataFrame([fact.metadata for fact in facts]).add_prefix(METADATA).fillna("")
    return identify_patients(facts), metadata
