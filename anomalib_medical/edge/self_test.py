"""`self-test`: is the bundle what was made, and does this machine score as the one that made it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..io import read_pixels, three_planes
from .errors import EdgeError
from .manifest import NAME, Manifest
from .predictor import MODEL, GraphScorer, Predictor, open_bundle
from .scores import normalize


def self_test(bundle: Path) -> list[str]:
    """Check every file's hash, and the scores of the image that came along.

    Returns:
        Lines that say what was checked.

    Raises:
        BundleError: If the manifest cannot be read.
        EdgeError: If anything differs.
    """
    manifest = open_bundle(bundle)
    return [
        f"{len(manifest.files)} files are as they were made",
        _check_scores(bundle, manifest),
    ]


def _check_scores(bundle: Path, manifest: Manifest) -> str:
    expected = manifest.self_test
    pixels = read_pixels(bundle / expected.image)
    image = three_planes(pixels)
    found = Predictor(GraphScorer(bundle / MODEL), manifest.post_processing)(image)
    difference = abs(found.raw_score - expected.raw_score)
    if not difference <= expected.tolerance:
        msg = (
            f"The self-test image has the raw score {found.raw_score:.6g} on this machine, expected "
            f"{expected.raw_score:.6g} within {expected.tolerance:.2g}. Do not use the scores of this machine: install "
            "the versions of requirements.txt, or make a bundle of another precision."
        )
        raise EdgeError(msg)
    processing = manifest.post_processing
    score = float(normalize(np.asarray(expected.raw_score, np.float32), processing.image, processing.normalization))
    if not abs(score - expected.score) <= 1e-5 * max(1, abs(score)):
        msg = (
            f"The self-test image's raw score {expected.raw_score:.6g} is normalised to {score:.6g} "
            f"by the thresholds in {NAME}, expected {expected.score:.6g}. Copy the bundle again from where it was made."
        )
        raise EdgeError(msg)
    return (
        f"raw score of the self-test image {found.raw_score:.6g}, off by {difference:.1g} of {expected.tolerance:.1g}"
    )
