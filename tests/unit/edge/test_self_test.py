"""The self-test of a bundle, in this process."""

from dataclasses import replace

import pytest

from anomalib_medical.edge.errors import EdgeError
from anomalib_medical.edge.manifest import Manifest
from anomalib_medical.edge.self_test import _check_scores


def test_another_threshold_than_the_bundle_was_made_with_is_found(scrd):
    _, bundle = scrd
    manifest = Manifest.read(bundle)
    assert "off by" in _check_scores(bundle, manifest)
    processing = manifest.post_processing
    for changed in (
        replace(processing, image=replace(processing.image, threshold=processing.image.threshold + 0.01)),
        replace(processing, normalization="linear"),
    ):
        with pytest.raises(EdgeError, match=r"is normalised to .* by the thresholds in manifest.json, expected"):
            _check_scores(bundle, replace(manifest, post_processing=changed))
