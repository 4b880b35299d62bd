"""What a query is compared with: the nearest positions, whose features, and other images of one task's batch."""

import itertools

import pytest
import torch

from anomalib_medical import D24fad
from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.models.d24fad import D24fadModel, matching
from anomalib_medical.models.d24fad.pairs import Pairs

SIZE = 64
ARGUMENTS = {"backbone": "resnet18", "image_size": SIZE, "pre_trained": False, "seed": 0}
KINDS = [
    {"matching": kind, "features": features, "weighting": weighting}
    for kind, features, weighting in itertools.product(
        ("aligned", "nearest"), ("student", "teacher", "both"), ("learned", "none")
    )
]
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))


def pictures(count, seed=0, size=(SIZE, SIZE)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def supported(kind, shots=3, **arguments):
    torch.manual_seed(0)
    model = D24fadModel("resnet18", **kind, **arguments).train()
    with torch.no_grad():
        # With fresh statistics maps are nearly constant.
        for seed in range(3):
            model.encode(pictures(8, seed) * 2 - 1)
    model.support.fill(model.encode_support(pictures(shots, seed=5)))
    return model.eval()


@pytest.mark.parametrize("pairs_at_once", [2**17, 40])
@pytest.mark.parametrize("window", [0, 0.2, 0.5, 1.0])
def test_the_nearest_position_within_the_window(window, pairs_at_once, monkeypatch):
    """A map that is not square, in one step and in several."""
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", pairs_at_once)
    height, width = 7, 5
    query, support = torch.randn(2, 4, height, width), torch.randn(3, 4, height, width)
    expected = torch.zeros(2, 3, height, width)
    positions = list(itertools.product(range(height), range(width)))
    for image, shot, (row, column) in itertools.product(range(2), range(3), positions):
        expected[image, shot, row, column] = min(
            (query[image, :, row, column] - support[shot, :, y, x]).square().sum()
            for y, x in positions
            if abs(y - row) <= window * height and abs(x - column) <= window * width
        )
    unit = support.square().sum(dim=1).mean()
    torch.testing.assert_close(matching.nearest_distances(query, support, window), expected / unit)


@torch.no_grad()
def test_a_shifted_image_is_like_itself_within_the_window_only():
    support = pictures(1, seed=3)
    query = support.roll(16, dims=3)
    scores = []
    for window in (0.0, 0.25):
        model = supported({"matching": "nearest", "features": "teacher"}, window=window)
        scores.append(float(model.score(query, model.encode_support(support)).pred_score))
    # 16 of 64 pixels, or two of the eight positions of the map.
    assert scores[1] < 0.8 * scores[0]


@EVERY
@torch.no_grad()
def test_every_kind_scores_leaves_one_out_and_loads_again(kind):
    model = supported(kind)
    result = model(pictures(2, seed=6))
    assert result.anomaly_map.shape == (2, 1, SIZE, SIZE)
    assert result.pred_score.isfinite().all()
    left_out = model.leave_one_out().pred_score
    support = pictures(3, seed=5)
    alone = model.score(support[:1], model.encode_support(support[1:])).pred_score[0]
    # The unit of the distances is that of the support, and so are they within it.
    torch.testing.assert_close(left_out[0], alone, rtol=1e-4, atol=1e-5)
    again = D24fadModel("resnet18", **kind)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(pictures(2, seed=6)).pred_score, result.pred_score)
    assert any("decoder" in name for name in model.state_dict()) == (kind["features"] != "teacher")


@EVERY
@torch.no_grad()
def test_a_batch_scores_as_its_images_do(kind):
    model, images = supported(kind), pictures(3, seed=6)
    alone = torch.cat([model(image[None]).pred_score for image in images])
    torch.testing.assert_close(model(images).pred_score, alone, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("features", ["student", "both"])
def test_training_with_nearest_matching_moves_student_and_weights(features):
    model = D24fad(**ARGUMENTS, matching="nearest", window=0.25, features=features)
    model.log = lambda *_, **__: None
    batch = MedicalImageBatch(image=pictures(3, seed=6), support=pictures(6, seed=7).unflatten(0, (3, 2)))
    model.train().training_step(batch, 0).backward()
    assert model.model.attention[0].project.weight.grad.abs().sum() > 0
    assert any(part.grad.abs().sum() > 0 for part in model.model.decoder.parameters() if part.grad is not None)
    assert not any(part.requires_grad for part in model.model.teacher.parameters())


def test_the_teachers_features_need_no_training():
    model = D24fad(**ARGUMENTS, matching="nearest", features="teacher").eval()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.configure_optimizers() is None
    model.set_support(pictures(3, seed=1))
    model.recalibrate(pictures(20, seed=2))
    assert model(pictures(2)).pred_label is not None


# One task, without episodes


def test_a_batch_is_its_own_support_of_other_patients():
    batch = MedicalImageBatch(image=pictures(4), patient_id=["a", "b", "a", "c"])
    pairs = Pairs.of(batch)
    assert pairs.columns.tolist() == [1, 3, 0, 2, 3, 1, 3, 0, 1, 2]
    assert pairs.member.tolist() == [
        [False, True, False, True],
        [True, False, True, True],
        [False, True, False, True],
        [True, True, True, False],
    ]
    assert Pairs.of(MedicalImageBatch(image=pictures(2))).member.tolist() == [[False, True], [True, False]]


@torch.no_grad()
def test_within_a_batch_an_image_is_scored_as_against_the_others_alone(monkeypatch):
    model = supported({})
    images, pairs = pictures(4, seed=6), Pairs.of_members(torch.eye(4).logical_not())
    encoded = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda batch: encoded.append(len(batch)) or encode(batch))
    episode = model.episode(images, None, pairs)
    scores = model.compare(episode.levels, episode.support, episode.pairs).pred_score
    assert encoded == [4]
    assert len(scores) == len(episode.teacher[0]) == 4
    for row in range(4):
        others = model.encode_support(images[[each for each in range(4) if each != row]])
        expected = model.score(images[[row]], others).pred_score
        torch.testing.assert_close(scores[[row]], expected, rtol=0, atol=2e-6)


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matching": "closest"}, "matching: got 'closest', expected one of aligned, nearest"),
        ({"features": "decoder"}, "features: got 'decoder', expected one of student, teacher, both"),
        ({"matching": "nearest", "window": 1.5}, "window: got 1.5 with matching nearest, expected 0 to 1"),
        (
            {"window": 0.2},
            r"window: got 0.2 with matching aligned, expected 0 to 1 with nearest \(and 1 with aligned\)",
        ),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        D24fad(**ARGUMENTS | arguments)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"matching": "aligned", "window": 1.0}, "matching: checkpoint 'nearest', this model 'aligned'"),
        ({"window": 0.5}, "window: checkpoint 0.25, this model 0.5"),
        ({"features": "teacher"}, "features: checkpoint 'both', this model 'teacher'"),
    ],
)
def test_a_checkpoint_of_another_comparison_is_refused(other, told):
    had = {"matching": "nearest", "window": 0.25, "features": "both"}
    checkpoint = saved(D24fad(**ARGUMENTS, **had))
    model = D24fad(**ARGUMENTS | had | other)
    with pytest.raises(ValueError, match=f"The checkpoint is not of this D24fad.*{told}.*Build the model with"):
        model.on_load_checkpoint(checkpoint)


def test_a_checkpoint_from_before_there_was_a_choice_is_of_aligned_features():
    former = saved(D24fad(**ARGUMENTS, weighting="none"))
    for name in ("matching", "window", "features"):
        del former["hyper_parameters"][name]
    # It kept what needs no keys twice.
    former["state_dict"] |= {f"model.support.keys_{scale}": torch.rand(2, 3, 4, 4) for scale in range(3)}
    D24fad(**ARGUMENTS, weighting="none").on_load_checkpoint(former)
    with pytest.raises(ValueError, match="matching: checkpoint 'aligned', this model 'nearest'"):
        D24fad(**ARGUMENTS, weighting="none", matching="nearest").on_load_checkpoint(former)


def saved(model):
    model.set_support(pictures(2))
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return checkpoint
