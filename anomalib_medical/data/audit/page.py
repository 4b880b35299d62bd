"""An audit's results as one web page that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from jinja2 import Environment
from pandas import DataFrame
from PIL import Image

from anomalib_medical.data.images import read_image
from anomalib_medical.io import Window, counted

from .audit import AuditReport

# Each pair takes about 15 kB of the page.
_SHOWN_PAIRS = 60
_SHOWN_FILES = 100
_THUMBNAIL = 224


def render_page(
    report: AuditReport,
    pairs: DataFrame,
    name: str,
    images: Sequence[str],
    window: Window | None = None,
    *,
    hashed: bool = False,
) -> str:
    """Return the page as HTML, with small copies of the images in pairs that leak.

    Args:
        report: The audit's results.
        pairs: A row a pair: kind, similarity, leak, and split, label, path and patient of both images.
        name: Name of the data set.
        images: Where each of the report's images can be read.
        window: Which values of DICOM and NIfTI files become black and white.
        hashed: Whether the report has hashes in place of paths.
    """
    leaking = pairs[pairs.leak]
    shown = leaking.head(_SHOWN_PAIRS)
    rows = report.pairs.loc[shown.index, ["first", "second"]]
    pictures = {row: _picture(images[row], window) for row in np.unique(rows)}
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=report,
        name=name,
        counts=report.counts().to_dict("records"),
        flagged=[finding.about for finding in report.findings],
        place=_place,
        pairs=shown.to_dict("records"),
        rows=rows.to_dict("records"),
        pictures=pictures,
        n_leaking=len(leaking),
        n_images=counted(len(report.samples), "image"),
        n_findings=counted(len(report.findings), "finding"),
        unreadable=report.unreadable[:_SHOWN_FILES],
        hashed=hashed,
    )


def _place(auroc: float) -> float:
    """Return where an AUROC lies on an axis from 0.5 to 1, in percent."""
    return round(100 * (min(max(auroc, 0.5), 1.0) - 0.5) / 0.5, 2)


def _picture(path: str, window: Window | None) -> str:
    """Return a small JPEG as the text of a data address."""
    pixels = read_image(path, window).permute(1, 2, 0).numpy()
    image = Image.fromarray((pixels * 255).round().astype(np.uint8))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode("ascii")
