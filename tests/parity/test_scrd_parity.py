"""SCRD's formulas against numbers computed once with the released ones (random tensors, no code)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_medical.models.components import GaussianBlur, cosine_distance_maps, feature_distances, reduce_map
from anomalib_medical.models.components.noise import fractal_simplex_noise, random_permutations
from anomalib_medical.models.scrd.loss import ScrdLoss

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def scrd():
    return np.load(FIXTURES / "scrd.npz")


def features(fixture, name):
    return [torch.from_numpy(fixture[f"{name}_{scale}"]) for scale in range(3)]


def test_distances_equal_the_released_ones(scrd):
    clean = feature_distances(features(scrd, "clean_teacher"), features(scrd, "student"))
    noisy = feature_distances(features(scrd, "noisy_teacher"), features(scrd, "student"))
    np.testing.assert_allclose(clean, scrd["distance_clean_per_image_scale"], rtol=1e-5)
    np.testing.assert_allclose(noisy, scrd["distance_noisy_per_image_scale"], rtol=1e-5)


def test_loss_without_weighting_equals_the_released_ratio(scrd):
    clean = feature_distances(features(scrd, "clean_teacher"), features(scrd, "student"))
    noisy = feature_distances(features(scrd, "noisy_teacher"), features(scrd, "student"))
    np.testing.assert_allclose(ScrdLoss()(clean, noisy, None), scrd["loss_ratio"], rtol=1e-5)


def test_maps_and_scores_equal_the_released_ones(scrd):
    maps = cosine_distance_maps(features(scrd, "clean_teacher"), features(scrd, "student"), size=(64, 64))
    np.testing.assert_allclose(maps, scrd["map_per_scale"], atol=1e-5)
    blurred = GaussianBlur(sigma=4.0)(maps.sum(dim=1, keepdim=True))
    np.testing.assert_allclose(blurred[:, 0], scrd["map_blurred"], atol=1e-5)
    np.testing.assert_allclose(reduce_map(blurred, "mean"), scrd["score_mean"], atol=1e-5)
    np.testing.assert_allclose(reduce_map(blurred, "max"), scrd["score_max"], atol=1e-5)


@pytest.fixture(scope="module")
def noise():
    generator = torch.Generator().manual_seed(1)
    draws = [fractal_simplex_noise((3, 32, 32), random_permutations(125, generator)) for _ in range(16)]
    return torch.cat(draws).numpy()


@pytest.fixture(scope="module")
def reference():
    return np.load(FIXTURES / "simplex_noise.npz")


def test_noise_has_the_released_spread(noise, reference):
    assert noise.std() == pytest.approx(float(reference["std"]), rel=0.05)
    # The reference's own mean, over 400 correlated draws, is -0.015 +- 0.016: percentiles are compared around it, and
    # the quartiles and the median, which lie near zero, by their distance in units of the spread.
    levels = reference["percentile_levels"]
    ours = np.percentile(noise, levels) - noise.mean()
    theirs = reference["percentiles"] - reference["mean"]
    tails = np.abs(levels - 50) >= 45
    np.testing.assert_allclose(ours[tails], theirs[tails], rtol=0.05)
    np.testing.assert_allclose(ours[~tails], theirs[~tails], atol=0.05 * float(reference["std"]))


def test_noise_has_the_released_autocorrelation(noise, reference):
    ours = [
        np.corrcoef(noise[..., :-lag].ravel(), noise[..., lag:].ravel())[0, 1]
        for lag in reference["autocorrelation_lags"]
    ]
    np.testing.assert_allclose(ours, reference["autocorrelation"], atol=0.03)
    channels = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert channels == pytest.approx(float(reference["adjacent_channel_correlation"]), abs=0.03)


def test_noise_has_the_released_spectrum(noise, reference):
    power = np.abs(np.fft.fftshift(np.fft.fft2(noise), axes=(-2, -1))) ** 2
    power = power.mean(axis=(0, 1))
    rows, columns = np.indices(power.shape) - 16
    radius = np.hypot(rows, columns).round().astype(int)
    radial = np.array([power[radius == frequency].mean() for frequency in reference["radial_frequency"]])
    np.testing.assert_allclose(radial / radial.sum(), reference["radial_power"], rtol=0.15)
