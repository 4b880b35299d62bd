"""D2-4FAD's formulas against numbers computed once with the released ones (random tensors, no code)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_medical.models.components import cosine_distance_maps, feature_distances
from anomalib_medical.models.d24fad.loss import D24fadLoss
from anomalib_medical.models.d24fad.matching import SupportAttention
from anomalib_medical.models.d24fad.torch_model import D24fadModel

FIXTURES = Path(__file__).parent / "fixtures"
SCALES = range(3)
QUERIES, SHOTS = 4, 3


@pytest.fixture(scope="module")
def released():
    return np.load(FIXTURES / "d24fad.npz")


def tensors(released, name):
    return [torch.from_numpy(released[f"{name}_{scale}"]) for scale in SCALES]


def pooled_support(released):
    """The supports of all queries in one set, as in a training batch: query b has rows b * K to b * K + K - 1."""
    return [support.transpose(0, 1).flatten(0, 1) for support in tensors(released, "support")]


def attentions(released):
    """Ours, with the released keys' weights; their bias is the same for all images of a support and cancels."""
    modules = []
    for weight in tensors(released, "key_weight"):
        module = SupportAttention(weight.shape[0])
        module.project.weight.data.copy_(weight)
        modules.append(module)
    return modules


MEMBER = torch.eye(QUERIES, dtype=torch.bool).repeat_interleave(SHOTS, dim=1)


@torch.no_grad()
def weighted_support(released):
    return [
        attention(query, support, attention.keys(support), MEMBER)
        for attention, query, support in zip(
            attentions(released), tensors(released, "query"), pooled_support(released), strict=True
        )
    ]


@torch.no_grad()
def test_the_weights_equal_the_released_ones_though_their_keys_have_a_bias(released):
    for scale, (attention, query, support) in enumerate(
        zip(attentions(released), tensors(released, "query"), pooled_support(released), strict=True)
    ):
        assert np.abs(released[f"key_bias_{scale}"]).max() > 0.1
        weights = attention.weights(query, attention.keys(support), MEMBER)
        np.testing.assert_allclose(weights[MEMBER].view(QUERIES, SHOTS), released[f"attention_{scale}"], rtol=1e-4)


def test_the_weighted_support_equals_the_released_one(released):
    for scale, ours in enumerate(weighted_support(released)):
        np.testing.assert_allclose(ours, released[f"weighted_support_{scale}"], rtol=1e-4, atol=1e-6)


def test_the_losses_equal_the_released_ones(released):
    query = tensors(released, "query")
    ssd = feature_distances(query, weighted_support(released))
    tsd = feature_distances(query, tensors(released, "teacher"))
    np.testing.assert_allclose(D24fadLoss(ssd_weight=1, tsd_weight=0)(ssd, tsd), released["loss_ssd"], rtol=1e-4)
    np.testing.assert_allclose(D24fadLoss(ssd_weight=0, tsd_weight=1)(ssd, tsd), released["loss_tsd"], rtol=1e-4)
    np.testing.assert_allclose(D24fadLoss()(ssd, tsd), released["loss_total"], rtol=1e-4)


def test_maps_and_scores_equal_those_of_single_images_and_not_the_blur_over_the_batch(released):
    maps = cosine_distance_maps(tensors(released, "query"), weighted_support(released), size=(64, 64))
    np.testing.assert_allclose(maps.sum(dim=1), released["map_sum"], rtol=1e-4)
    result = D24fadModel("resnet18").finish(maps)
    np.testing.assert_allclose(result.anomaly_map[:, 0], released["map_blurred"], rtol=1e-4)
    np.testing.assert_allclose(result.pred_score, released["score_max"], rtol=1e-4)
    assert np.abs(result.pred_score.numpy() - released["score_max_batch_blur_as_coded"]).min() > 0.1
