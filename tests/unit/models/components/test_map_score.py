import copy

import numpy as np
import pytest
import torch

from anomalib_medical.edge.scores import order_statistic
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import MapScore, reduce_map
from anomalib_medical.models.components.map_score import FEWEST_NORMALS, NormalMaps, check_score


def random_maps(count, seed=0, size=(6, 5)):
    """Of another mean and deviation at every pixel."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.Generator().manual_seed(99)
    mean, deviation = torch.rand(1, 1, *size, generator=place), 0.5 + torch.rand(1, 1, *size, generator=place)
    return mean + deviation * torch.randn(count, 1, *size, generator=generator)


def fitted(maps, reduction="mean"):
    score = MapScore(reduction, "pixel")
    score.fit(maps.split(7))
    return score


def test_reductions():
    maps = torch.arange(8.0).reshape(2, 1, 2, 2)
    assert reduce_map(maps, "mean").tolist() == [1.5, 5.5]
    assert reduce_map(maps, "max").tolist() == [3.0, 7.0]
    assert reduce_map(maps, "top_k", 0.5).tolist() == [2.5, 6.5]
    assert reduce_map(maps, "top_k", 0.25).tolist() == [3.0, 7.0]
    assert reduce_map(maps, "top_k", 1.0).tolist() == [1.5, 5.5]
    assert reduce_map(maps, "top_k", 1e-9).tolist() == [3.0, 7.0], "one pixel at least"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("median", "none", 0.01), "score_reduction: got 'median', expected one of mean, max, top_k"),
        (("mean", "image", 0.01), "map_normalization: got 'image', expected one of none, pixel"),
        (("mean", "none", 0.0), "top_share: got 0.0, expected a share of the map's pixels, above 0 and at most 1"),
        (("mean", "none", 1.5), "top_share: got 1.5"),
    ],
)
def test_what_it_does_not_know_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_score(*arguments)


def test_moments_of_batches_are_those_of_all():
    maps = random_maps(33)
    score = fitted(maps)
    np.testing.assert_allclose(score.mean, maps.mean(0, keepdim=True), atol=1e-6)
    np.testing.assert_allclose(score.deviation, maps.std(0, keepdim=True), rtol=1e-5)


def test_maps_stay_as_they_are_until_it_is_fitted_and_again_after_a_reset():
    maps = random_maps(30)
    score = MapScore("max", "pixel")
    for _ in range(2):
        torch.testing.assert_close(score(maps).anomaly_map, maps, rtol=0, atol=0)
        score.fit([maps])
        scored = score(maps)
        np.testing.assert_allclose(scored.anomaly_map, (maps - maps.mean(0)) / maps.std(0), atol=1e-5)
        torch.testing.assert_close(scored.pred_score, scored.anomaly_map.amax((1, 2, 3)))
        score.reset()


def test_a_pixel_that_never_varies_does_not_drown_the_others():
    maps = random_maps(30)
    maps[:, :, 0] = 0
    new = random_maps(1, seed=5)
    new[:, :, 0] = 1e-3
    assert float(fitted(maps)(new).anomaly_map[:, :, 0].max()) < 0.01
    constant = torch.zeros(30, 1, 4, 4)
    assert torch.equal(fitted(constant)(constant).anomaly_map, constant), "0 / 0 is no nan"


def test_held_out_images_are_scored_as_by_a_fit_without_them():
    maps = random_maps(25)
    score = fitted(maps)
    left_out = score.leave_out(score(maps), torch.arange(25) != 3)
    for index in (0, 7, 24):
        others = NormalMaps.of(torch.cat([maps[:index], maps[index + 1 :]]))
        expected = (maps[index] - others.mean) / others.variance.sqrt().maximum(score.normals.floor)
        np.testing.assert_allclose(left_out.anomaly_map[index : index + 1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left_out.anomaly_map[3], score(maps).anomaly_map[3], rtol=0, atol=0)
    torch.testing.assert_close(left_out.pred_score, left_out.anomaly_map.mean((1, 2, 3)))


def test_a_threshold_from_held_out_images_keeps_its_specificity_on_new_ones():
    """Scored by a fit to themselves, they would promise more than new images keep."""
    kept, promised = [], []
    for seed in range(20):
        maps, new = random_maps(40, seed, (16, 16)), random_maps(400, 1000 + seed, (16, 16))
        score = fitted(maps, "max")
        scored = score(maps)
        fair = score.leave_out(scored, torch.ones(40, dtype=torch.bool)).pred_score
        of_new = score(new).pred_score
        kept.append(float((of_new <= order_statistic(fair.tolist(), 0.9)).float().mean()))
        promised.append(float((of_new <= order_statistic(scored.pred_score.tolist(), 0.9)).float().mean()))
    assert np.mean(promised) < 0.75
    assert 0.86 < np.mean(kept) < 0.94


def test_too_few_normals_are_refused_with_their_number():
    with pytest.raises(MedicalError, match=rf"got 19, expected at least {FEWEST_NORMALS}.*map_normalization none"):
        MapScore(map_normalization="pixel").fit(random_maps(19).split(5))


def test_a_map_of_another_size_is_refused():
    with pytest.raises(MedicalError, match=r"are of 5x5 pixels .* of 6x5"):
        fitted(random_maps(30))(torch.zeros(1, 1, 5, 5))


def test_a_state_of_any_size_can_be_loaded_and_none_without_normalization():
    maps = random_maps(30)
    source, target = fitted(maps), MapScore(map_normalization="pixel")
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target(maps).pred_score, source(maps).pred_score, rtol=0, atol=0)
    target.load_state_dict(MapScore(map_normalization="pixel").state_dict())
    assert not target.is_fitted
    assert not MapScore("top_k").state_dict()
    assert copy.deepcopy(source).is_fitted
