"""Pixel metrics against scikit-learn and anomalib, within the tolerance that binning costs."""

import numpy as np
import pytest
import torch
from anomalib.metrics.aupro import _AUPRO
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from anomalib_medical.metrics import aupro, bin_pixels, pixel_auroc

TOLERANCE = 5e-4


def sample(n: int = 24, size: int = 48, seed: int = 0, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Smooth maps that are higher on the lesions; one image in three is normal, some have two lesions."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, size, size), dtype=bool)
    for index in range(n):
        for _ in range(index % 3):
            top, left = rng.integers(0, size - 14, size=2)
            height, width = rng.integers(2, 14, size=2)
            masks[index, top : top + height, left : left + width] = True
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 2, 2))
    maps = noise / noise.std() + strength * ndimage.gaussian_filter(masks.astype(float), (0, 1, 1))
    return maps.astype(np.float32), masks


def anomalib_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    metric = _AUPRO(fpr_limit=0.3)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
    return float(metric.compute())


@pytest.mark.parametrize("strength", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_values_equal_the_references(strength, seed):
    maps, masks = sample(seed=seed, strength=strength)
    counts = bin_pixels(maps, masks)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_auroc(counts, n_resamples=0).value == pytest.approx(expected, abs=TOLERANCE)
    assert aupro(counts, n_resamples=0).value == pytest.approx(anomalib_aupro(maps, masks), abs=TOLERANCE)


def test_tied_maps_equal_the_references():
    maps, masks = sample()
    maps = np.round(maps)
    counts = bin_pixels(maps, masks)
    assert pixel_auroc(counts, n_resamples=0).value == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert aupro(counts, n_resamples=0).value == pytest.approx(anomalib_aupro(maps, masks), abs=TOLERANCE)


def test_intervals_are_those_of_resampled_images():
    maps, masks = sample(n=12, size=32)
    counts = bin_pixels(maps, masks)
    from anomalib_medical.metrics.bootstrap import resample_patients

    weights = resample_patients(masks.any(axis=(1, 2)), np.arange(12), 60, 0).astype(int)
    drawn = [np.repeat(np.arange(12), row) for row in weights]
    references = (
        (pixel_auroc, [roc_auc_score(masks[index].ravel(), maps[index].ravel()) for index in drawn]),
        (aupro, [anomalib_aupro(maps[index], masks[index]) for index in drawn]),
    )
    for metric, expected in references:
        estimate = metric(counts, n_resamples=60)
        assert (estimate.low, estimate.high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=2e-3)


def test_patients_widen_the_interval_of_duplicates():
    maps, masks = sample()
    counts = bin_pixels(np.tile(maps, (4, 1, 1)), np.tile(masks, (4, 1, 1)))
    patients = [str(i) for i in range(len(maps))] * 4
    for metric in (pixel_auroc, aupro):
        clustered, naive = metric(counts, patients), metric(counts)
        assert naive.high - naive.low < 0.7 * (clustered.high - clustered.low)
        assert metric(counts, patients, seed=1) == metric(counts, patients, seed=1)


def test_regions_touching_at_a_corner_are_one():
    masks = np.zeros((2, 4, 4))
    masks[0, 1, 1] = masks[0, 2, 2] = 1
    assert bin_pixels(np.random.default_rng(0).random((2, 4, 4)), masks).regions.tolist() == [1, 0]


def test_channel_axis_and_tensors():
    maps, masks = sample()
    plain = bin_pixels(maps, masks)
    other = bin_pixels(torch.from_numpy(maps)[:, None], torch.from_numpy(masks)[:, None].float())
    assert np.array_equal(plain.normal, other.normal)
    assert np.array_equal(plain.overlap, other.overlap)


def test_abnormal_images_alone_suffice():
    maps, masks = sample()
    abnormal = masks.any(axis=(1, 2))
    estimate = aupro(bin_pixels(maps[abnormal], masks[abnormal]))
    assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.ones((2, 4, 4)), np.zeros((2, 4, 4)), "there are 32 normal and 0 abnormal"),
        (np.ones((2, 4, 4)), np.ones((2, 4, 4)), "there are 0 normal and 32 abnormal"),
        (np.full((2, 4, 4), np.nan), np.eye(4)[None].repeat(2, 0), "32 of 32 pixel scores are nan"),
        (np.ones((2, 4, 4)), np.eye(8)[None].repeat(2, 0), "Resize the masks"),
        (np.ones((2, 3, 4, 4)), np.ones((2, 4, 4)), "maps must have shape"),
        (np.ones((2, 4, 4)), np.full((2, 4, 4), 255), "0 .normal. or 1 .abnormal."),
    ],
)
def test_bad_input_is_named(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        bin_pixels(maps, masks)
