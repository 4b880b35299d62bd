"""D2-4FAD's network: who is compared with whom, whatever the batch, the order and the number of support images."""

import pytest
import torch

from anomalib_medical import D24fad, MedicalPostProcessor
from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.models.components import feature_distances
from anomalib_medical.models.d24fad import D24fadModel
from anomalib_medical.models.d24fad.matching import SupportAttention, SupportSet
from anomalib_medical.models.d24fad.pairs import Pairs
from anomalib_medical.models.d24fad.support import diverse_rows, feature_ratios, find_outliers, score_ratios

SIZE = 64
ARGUMENTS = {"backbone": "resnet18", "image_size": SIZE, "pre_trained": False, "seed": 0}

# Two queries with two support images each.
MEMBER = torch.eye(2, dtype=torch.bool).repeat_interleave(2, dim=1)


def pictures(count, seed=0, size=(SIZE, SIZE)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def supports_of(pool, own):
    """The different images of supports, rows ``(B, K)`` of a pool, and whose support they are in."""
    batch = MedicalImageBatch(image=pool[own[:, 0]], support=pool[own], support_index=own)
    pairs = Pairs.of(batch)
    return batch.support.flatten(0, 1)[pairs.first], pairs


@pytest.fixture(scope="module")
def network():
    """A network whose batch normalisation has seen something: with fresh statistics maps are nearly constant."""
    torch.manual_seed(0)
    model = D24fadModel("resnet18").train()
    with torch.no_grad():
        for seed in range(3):
            model.encode(pictures(8, seed) * 2 - 1)
    return model.eval()


@pytest.fixture
def supported(network):
    network.support = SupportSet()
    network.support.fill(network.encode_support(pictures(4, seed=5)))
    return network


@torch.no_grad()
def scored(model, images):
    return model(images).pred_score


def test_the_size_of_the_batch_does_not_matter(supported):
    images = pictures(16, seed=6)
    alone = torch.cat([scored(supported, image[None]) for image in images])
    together = scored(supported, images)
    assert together.std() > 1e-4
    torch.testing.assert_close(alone, together, rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_order_of_the_support_does_not_matter(supported):
    images, support = pictures(3, seed=6), pictures(4, seed=5)
    turned = supported.encode_support(support[[2, 0, 3, 1]])
    torch.testing.assert_close(supported.score(images, turned).pred_score, scored(supported, images), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shots", [1, 2, 8, 17])
@torch.no_grad()
def test_any_number_of_support_images(network, shots):
    result = network.score(pictures(2, seed=6), network.encode_support(pictures(shots, seed=7)))
    assert result.pred_score.shape == (2,)
    assert result.anomaly_map.shape == (2, 1, SIZE, SIZE)
    assert result.anomaly_map.isfinite().all()


@torch.no_grad()
def test_what_is_in_the_support_scores_zero_alone(network):
    image = pictures(1, seed=6)
    assert float(network.score(image, network.encode_support(image)).pred_score) < 1e-5


@torch.no_grad()
def test_the_score_is_max_or_mean_of_the_images_own_map(supported):
    result = supported(pictures(3, seed=6))
    torch.testing.assert_close(result.pred_score, result.anomaly_map.amax(dim=(1, 2, 3)))
    supported.map_score.reduction = "mean"
    mean = supported(pictures(3, seed=6)).pred_score
    supported.map_score.reduction = "max"
    torch.testing.assert_close(mean, result.anomaly_map.mean(dim=(1, 2, 3)))


@torch.no_grad()
def test_an_episode_is_each_query_with_its_own_support(network):
    queries, pool = pictures(3, seed=6), pictures(5, seed=7)
    own = torch.tensor([[0, 1], [1, 4], [3, 0]])
    images, pairs = supports_of(pool, own)
    episode = network.episode(queries, images, pairs)
    together = network.compare(episode.levels, episode.support, episode.pairs).pred_score
    for index, rows in enumerate(own):
        alone = network.score(queries[index : index + 1], network.encode_support(pool[rows]))
        torch.testing.assert_close(together[index : index + 1], alone.pred_score, rtol=0, atol=2e-6)


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_makes_constants_of_the_supports_features(stop):
    model = D24fad(**ARGUMENTS, weighting="none", stop_gradient=stop)
    model.log = lambda *_, **__: None
    model.eval()  # in training mode queries and support share the statistics of a batch
    batch = MedicalImageBatch(image=pictures(2, seed=6), support=pictures(4, seed=7).unflatten(0, (2, 2)))

    def gradient(loss):
        decoder = [parameter for parameter in model.model.decoder.parameters() if parameter.requires_grad]
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, decoder)])

    features = model.model.episode(batch.image, model.prepare(batch.support.flatten(0, 1)), Pairs.of_members(MEMBER))
    constant = [part.detach() for part in model.model.weigh(features.levels, features.support, features.pairs)]
    expected = model.loss(
        feature_distances(features.student, constant), feature_distances(features.student, features.teacher)
    )
    assert torch.allclose(gradient(model.training_step(batch, 0)), gradient(expected), rtol=1e-3, atol=1e-7) == stop


def test_shared_support_images_come_once():
    pool = pictures(5, seed=7, size=(2, 2))
    own = torch.tensor([[4, 1], [1, 2], [2, 4]])
    images, pairs = supports_of(pool, own)
    torch.testing.assert_close(images, pool[[1, 2, 4]])
    assert pairs.member.tolist() == [[True, False, True], [True, True, False], [False, True, True]]
    assert pairs.columns.tolist() == [0, 2, 0, 1, 1, 2]
    assert pairs.counts == (2, 2, 2)
    assert Pairs.of(MedicalImageBatch(image=pool[:3], support=pool[own])).member.shape == (3, 6)


def test_each_image_of_a_batch_is_encoded_once_and_the_teacher_learns_nothing(network, monkeypatch):
    seen = []
    extractor = network.teacher.extractor.feature_extractor.forward
    monkeypatch.setattr(
        network.teacher.extractor.feature_extractor,
        "forward",
        lambda images: (seen.append((images.shape[0], torch.is_grad_enabled())), extractor(images))[1],
    )
    own = torch.tensor([[0, 1], [1, 0], [0, 1]])
    images, pairs = supports_of(pictures(2, seed=7), own)
    features = network.episode(pictures(3, seed=6), images, pairs)
    assert [count for count, _ in seen] == [3 + 2]
    assert not any(feature.requires_grad for feature in features.teacher)
    assert all(feature.requires_grad for feature in features.student)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_the_gradient_reaches_the_support_unless_it_is_stopped(network, monkeypatch, stop_gradient):
    """Learn-to-weight learns either way."""
    encoded = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda images: encoded.append(encode(images)) or encoded[-1])
    own = torch.tensor([[0, 1], [1, 2]])
    images, pairs = supports_of(pictures(3, seed=7), own)
    features = network.episode(pictures(2, seed=6), images, pairs, stop_gradient=stop_gradient)
    student = encoded[0][1]
    gradient, weights = torch.autograd.grad(
        network.self_distances(features).sum(), [student[0], network.attention[0].project.weight]
    )
    assert gradient[:2].abs().sum() > 0
    assert (gradient[2:].abs().sum() > 0) == (not stop_gradient)
    assert weights.abs().sum() > 0


@torch.no_grad()
def test_weights_are_computed_in_float32_under_autocast():
    attention = SupportAttention(8)
    query, support = torch.randn(2, 8, 16, 16) * 3, torch.randn(3, 8, 16, 16) * 3
    expected = attention.weights(query, attention.keys(support))
    weighted = attention(query, support, attention.keys(support))
    with torch.autocast("cpu", torch.bfloat16):
        keys = attention.keys(support)
        got = attention.weights(query, keys)
        again = attention(query, support, keys)
    assert keys.dtype == got.dtype == again.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(again, weighted, rtol=0, atol=0)


@torch.no_grad()
def test_what_all_keys_share_does_not_drown_their_differences():
    """Logits of 10**6 that differ by one: float32 alone would round the difference away."""
    query = torch.full((1, 4, 16, 16), 30.0)
    keys = torch.full((2, 4, 16, 16), 60.0)
    keys[1] += 2.0 / (30.0 * 1024)
    exact = (query.double().flatten(1) @ keys.double().flatten(1).T / 2).softmax(dim=1)
    assert exact.max() < 0.9
    torch.testing.assert_close(SupportAttention(4).weights(query, keys).double(), exact, rtol=0, atol=0.02)


@torch.no_grad()
def test_without_learnt_weights_the_support_is_averaged():
    attention = SupportAttention(4, learned=False)
    query, support = torch.randn(2, 4, 3, 3), torch.randn(3, 4, 3, 3)
    member = torch.tensor([[True, True, False], [True, True, True]])
    got = attention(query, support, attention.keys(support), member)
    torch.testing.assert_close(got, torch.stack([support[:2].mean(dim=0), support.mean(dim=0)]))


@torch.no_grad()
def test_leaving_one_out_is_scoring_it_against_the_others(supported):
    support = pictures(4, seed=5)
    left_out = supported.leave_one_out()
    for index in range(4):
        others = supported.encode_support(support[[row for row in range(4) if row != index]])
        torch.testing.assert_close(
            left_out.pred_score[index], supported.score(support[[index]], others).pred_score[0], rtol=0, atol=2e-6
        )


def test_a_state_with_another_number_of_support_images_loads(supported):
    state = {key: value.clone() for key, value in supported.state_dict().items()}
    other = D24fadModel("resnet18")
    other.support.fill(other.encode_support(pictures(2)))
    other.load_state_dict(state)
    assert len(other.support) == 4
    torch.testing.assert_close(scored(other.eval(), pictures(2, seed=6)), scored(supported, pictures(2, seed=6)))


def test_encoding_a_support_leaves_the_statistics_alone(network):
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    encoded = network.encode_support(pictures(3, seed=8))
    assert network.training
    network.eval()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    torch.testing.assert_close(encoded[0].features, network.encode_support(pictures(3, seed=8))[0].features)


def test_no_support_and_another_size_are_refused(network):
    network.support = SupportSet()
    with pytest.raises(ValueError, match=r"no support set.*--model\.support_dir FOLDER, or model\.set_support"):
        network(pictures(1))
    network.support.fill(network.encode_support(pictures(2)))
    with pytest.raises(ValueError, match=r"Got images of 96x64 pixels.*support of 64x64: both must be resized alike"):
        network(pictures(1, size=(96, 64)))


# The Lightning module's support


@pytest.fixture(scope="module")
def model():
    return D24fad(**ARGUMENTS).eval()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "Got 0 support images, expected at least 1"),
        (torch.rand(2, 1, 64, 64), r"The support image 0 has the shape \(1, 64, 64\)"),
        (torch.randn(1, 3, 64, 64), r"values from -.*expected \(3, height, width\) with values in \[0, 1\]"),
        ([torch.rand(3, 8, 8), torch.full((3, 8, 8), torch.nan)], "The support image 1 has"),
    ],
)
def test_no_support_images(images, message):
    with pytest.raises(ValueError, match=message):
        D24fad(**ARGUMENTS).set_support(images)


def test_images_of_different_sizes_are_resized_or_refused(model):
    images = [pictures(1, size=(40, 64))[0], pictures(1, size=(90, 70))[0]]
    model.set_support(images)
    assert len(model.model.support) == 2
    with pytest.raises(ValueError, match=r"different sizes \(40x64, 90x70\)"):
        D24fad(**ARGUMENTS, pre_processor=False).set_support(images)


def test_support_images_are_prepared_as_the_engine_prepares_queries(model):
    from anomalib.data import ImageBatch

    image = pictures(1, size=(90, 70))
    batch = ImageBatch(image=image.clone())
    model.pre_processor.on_predict_batch_start(None, None, batch, 0)
    torch.testing.assert_close(model.prepare(image), torch.Tensor(batch.image), rtol=0, atol=0)
    plain = D24fad(**ARGUMENTS, normalize=False).prepare(image)
    assert plain.shape[-2:] == (SIZE, SIZE)
    assert 0 <= plain.min() <= plain.max() <= 1


def calibrated(count=3):
    model = D24fad(**ARGUMENTS).eval()
    model.set_support(pictures(count, seed=1))
    model.recalibrate()
    return model


def test_another_support_drops_the_threshold_and_calibrating_sets_it():
    model = calibrated()
    threshold = model.post_processor.image_threshold.clone()
    assert threshold.isfinite()
    assert model(pictures(2)).pred_label is not None
    model.set_support(pictures(3, seed=2))
    with torch.no_grad():
        result, raw = model(pictures(2)), model.model(model.pre_processor(pictures(2)))
    assert result.pred_label is None
    assert result.pred_mask is None
    torch.testing.assert_close(result.pred_score, raw.pred_score)
    assert model.post_processor.image_threshold.isnan()
    model.recalibrate(pictures(30, seed=3))
    with torch.no_grad():
        scores = torch.cat([model.model(model.pre_processor(image[None])).pred_score for image in pictures(30, seed=3)])
    # 95% of 30 normal images: the second largest has rank 30 = ceil(31 * 0.95).
    torch.testing.assert_close(model.post_processor.image_threshold, scores.max(), rtol=0, atol=1e-5)
    assert model(pictures(2)).pred_label is not None


def test_the_same_support_keeps_its_threshold():
    model = calibrated()
    threshold = model.post_processor.image_threshold.clone()
    model.set_support(pictures(3, seed=1))
    assert model.post_processor.image_threshold == threshold


def test_calibrating_needs_something_to_calibrate():
    model = D24fad(**ARGUMENTS)
    with pytest.raises(ValueError, match="The support holds 0 images, expected at least 2"):
        model.recalibrate()
    with pytest.raises(ValueError, match="no support set to compare with"):
        model.recalibrate(pictures(2))
    model.set_support(pictures(1))
    with pytest.raises(ValueError, match="Got 0 normal images, expected at least 1"):
        model.recalibrate([])
    with pytest.raises(ValueError, match="The support holds 1 image, expected at least 2 to leave one out"):
        model.recalibrate()
    raw = D24fad(**ARGUMENTS, post_processor=False)
    raw.set_support(pictures(2))
    with pytest.raises(ValueError, match="The post-processor is NoneType"):
        raw.recalibrate()


def test_an_outlier_is_named_and_ordinary_images_are_not(network, caplog):
    model = D24fad(**ARGUMENTS).eval()
    model.model = network
    usual = [0.4 + 0.1 * image for image in pictures(5, seed=4)]
    model.set_support(usual)
    assert "outlier" not in caplog.text
    model.set_support([*usual[:3], torch.zeros(3, SIZE, SIZE)])
    assert "Support image number 3 is an outlier" in caplog.text
    assert caplog.text.count("is an outlier") == 1
    # Of two images nobody can say which is the odd one.
    model.set_support([usual[0], torch.zeros(3, SIZE, SIZE)])
    assert caplog.text.count("is an outlier") == 1


def test_an_outlier_does_not_hide_behind_its_own_weight(supported):
    """Of each image's score and the mean score of the others without it."""
    ratios = score_ratios(supported)
    support = pictures(4, seed=5)
    for index in range(4):
        rest = support[[row for row in range(4) if row != index]]
        own = supported.score(support[[index]], supported.encode_support(rest)).pred_score[0]
        others = D24fadModel("resnet18")
        others.load_state_dict(supported.state_dict())
        others.support.fill(others.encode_support(rest))
        torch.testing.assert_close(ratios[index], own / others.leave_one_out().pred_score.mean(), rtol=1e-3, atol=0)


def test_an_outlier_is_found_by_features_alone(supported):
    near = torch.eye(4)[:3] * 0.1
    far = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(feature_ratios(torch.cat([near, near[:1]]))[:3], torch.tensor([2 / 3, 1.5, 1.5]))
    assert find_outliers(supported, torch.eye(4)) == []
    assert find_outliers(supported, torch.cat([near[:1], far, near[1:]])) == [1]


def test_an_outlier_is_found_by_scores_alone(supported):
    usual = 0.7 * pictures(1, seed=4) + 0.3 * pictures(3, seed=5)
    supported.support.fill(supported.encode_support(torch.cat([usual, pictures(1, seed=8)])))
    assert 4 < score_ratios(supported)[3] < 12
    assert find_outliers(supported, torch.eye(4)) == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weighting": "learnt"}, "weighting: got 'learnt', expected one of learned, none"),
        ({"score_reduction": "sum"}, "score_reduction: got 'sum'"),
        ({"support_selection": "best"}, "support_selection: got 'best', expected one of random, diverse"),
        ({"image_size": 100}, "multiples of 32"),
        ({"ssd_weight": 0, "tsd_weight": 0}, "got 0 and 0, expected 0 or more, not both 0"),
        ({"support_shots": 2}, "support_shots: got 2 with support_dir None"),
        ({"post_processor": MedicalPostProcessor(threshold="f1")}, "a few normal images are known and no anomaly"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        D24fad(**ARGUMENTS | arguments)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50", "wide_resnet50_2"])
@torch.no_grad()
def test_every_backbone_fits(backbone):
    model = D24fadModel(backbone).eval()
    model.support.fill(model.encode_support(pictures(2)))
    assert model(pictures(1, seed=1)).anomaly_map.shape == (1, 1, SIZE, SIZE)


def test_diverse_images_are_far_from_one_another():
    groups = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    embeddings = (groups[:, None] + 0.1 * torch.rand(3, 20, 2)).flatten(0, 1)
    state = torch.random.get_rng_state()
    for seed in range(5):
        assert {row // 20 for row in diverse_rows(embeddings, 3, seed)} == {0, 1, 2}
    assert diverse_rows(embeddings, 3, 1) == diverse_rows(embeddings, 3, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
