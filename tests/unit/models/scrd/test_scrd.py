import copy

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Resize

from anomalib_medical import Scrd
from anomalib_medical.models.components import cosine_distance_maps, feature_distances
from anomalib_medical.models.scrd import ScrdLoss, ScrdModel
from anomalib_medical.models.scrd.loss import changed_distances
from anomalib_medical.models.scrd.torch_model import ScaleAdaptation


def build(**kwargs):
    return Scrd(**{"backbone": "resnet18", "image_size": 64, "pre_trained": False, "seed": 0} | kwargs)


def batch(count=4, size=64, seed=0):
    return ImageBatch(image=torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def scrd():
    return build()


@pytest.fixture
def random_features():
    generator = torch.Generator().manual_seed(0)

    def features(correlation, like=None):
        result = []
        for scale, channels in enumerate((8, 16, 32)):
            noise = torch.randn(6, channels, 16 // 2**scale, 16 // 2**scale, generator=generator)
            result.append(noise if like is None else correlation * like[scale] + noise)
        return result

    teacher = features(0)
    # The student is nearer to the clean teacher than to the noisy one, by another margin on each scale.
    student = [(scale + 1) * feature for scale, feature in enumerate(teacher)]
    student = [feature + torch.randn(feature.shape, generator=generator) for feature in student]
    return teacher, student, features(0.5, teacher)


def test_training_returns_features_and_evaluation_scores(scrd):
    model = copy.deepcopy(scrd.model)
    images = batch().image
    features = model.train()(images, images)
    assert [tuple(f.shape) for f in features.student] == [tuple(f.shape) for f in features.teacher]
    assert not any(f.requires_grad for f in features.teacher + features.noisy_teacher)
    result = model.eval()(images)
    assert isinstance(result, InferenceBatch)
    assert result.anomaly_map.shape == (4, 1, 64, 64)
    assert result.pred_score.shape == (4,)
    assert result.pred_score.dtype == torch.float32


@pytest.mark.parametrize(
    ("backbone", "million"),
    [("resnet18", 11.7), ("resnet34", 11.7), ("wide_resnet50_2", 67.3)],
)
def test_bottleneck_has_the_released_size(backbone, million):
    """Less its two unused layers; 128 wide for wide_resnet50_2 (methods: 67.3 M parameters with them)."""
    model = ScrdModel(backbone)
    unused = {"resnet18": 0.5, "resnet34": 0.5, "wide_resnet50_2": 8.4}[backbone]
    count = sum(parameter.numel() for parameter in model.bottleneck.parameters()) / 1e6
    expected = million if backbone != "wide_resnet50_2" else million - unused
    assert count == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("contrast", ["ratio", "local", "none"])
def test_every_trained_parameter_gets_a_gradient(contrast):
    """A parameter without one breaks training on several devices."""
    model = build(contrast=contrast).train()
    model.training_step(batch(), 0).backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any(name.startswith("model.teacher") for name in trained)


def test_the_optimizer_holds_no_teacher(scrd):
    optimizer = scrd.configure_optimizers()
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not optimized & {id(parameter) for parameter in scrd.model.teacher.parameters()}
    assert optimized == {id(parameter) for parameter in scrd.parameters() if parameter.requires_grad}
    assert optimizer.defaults["betas"] == (0.5, 0.999)
    assert optimizer.defaults["lr"] == 1e-3


def test_the_teacher_stays_frozen_while_training(scrd):
    model = copy.deepcopy(scrd).train()
    optimizer = model.configure_optimizers()
    before = {key: value.clone() for key, value in model.model.teacher.state_dict().items()}
    for index in range(2):
        optimizer.zero_grad()
        model.training_step(batch(seed=index), index).backward()
        optimizer.step()
    assert not model.model.teacher.extractor.feature_extractor.training
    assert all(torch.equal(before[key], value) for key, value in model.model.teacher.state_dict().items())


@pytest.mark.parametrize("contrast", ["ratio", "local"])
def test_one_teacher_pass_and_one_student_pass_a_step(contrast):
    model = build(contrast=contrast).train()
    calls = {"teacher": [], "bottleneck": [], "decoder": []}
    for name, sizes in calls.items():
        getattr(model.model, name).register_forward_hook(
            lambda _, inputs, __, sizes=sizes: sizes.append(
                len(inputs[0]) if torch.is_tensor(inputs[0]) else len(inputs[0][0])
            ),
        )
    model.training_step(batch(), 0)
    assert calls == {"teacher": [8], "bottleneck": [4], "decoder": [4]}


def test_equal_weights_change_nothing(random_features):
    teacher, student, noisy = random_features
    clean, pushed = feature_distances(teacher, student), feature_distances(noisy, student)
    torch.testing.assert_close(ScrdLoss()(clean, pushed, torch.ones(6, 3)), ScrdLoss()(clean, pushed, None))


def test_balance_keeps_the_weights_from_one_scale():
    """Minimised over the weights alone, the ratio puts them all on one scale, and the balance spreads them."""
    clean, pushed = torch.tensor([[0.3, 0.25, 0.2]]).expand(6, 3), torch.tensor([[0.4, 0.4, 0.4]]).expand(6, 3)

    def best_weights(balance):
        logits = torch.zeros(1, 3, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            ScrdLoss(balance=balance)(clean, pushed, 3 * logits.softmax(dim=1).expand(6, 3)).backward()
            optimizer.step()
        return logits.softmax(dim=1)[0]

    assert best_weights(0.0).max() > 0.98
    balanced = best_weights(0.1)
    assert balanced.min() > 0.1
    assert balanced.max() > 0.34, "and yet they are not equal"


def test_learnt_weights_change_loss_and_map(scrd, random_features):
    """In the released code they change neither: the cosine cancels them."""
    teacher, student, noisy = random_features
    clean, pushed = feature_distances(teacher, student), feature_distances(noisy, student)
    learnt = 3 * torch.tensor([[0.7, 0.2, 0.1]]).expand(6, 3)
    plain = ScrdLoss(balance=0.0)
    assert abs(float(plain(clean, pushed, learnt) - plain(clean, pushed, None))) > 1e-2

    model = copy.deepcopy(scrd.model).eval()
    images = batch().image
    with torch.no_grad():
        model.scale_adaptation.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
        weighted = model(images)
        model.scale_adaptation = None
        equal = model(images)
    assert (weighted.anomaly_map - equal.anomaly_map).abs().max() > 1e-2
    assert (weighted.pred_score - equal.pred_score).abs().max() > 1e-3


def test_the_scale_logits_get_a_gradient(random_features):
    """1e-6 in the released code, where nothing can be learnt from it."""
    teacher, student, noisy = random_features
    module = ScaleAdaptation(channels=12)
    embedding = torch.randn(6, 12, 4, 4, generator=torch.Generator().manual_seed(0)).abs()
    logits = module.linear(embedding.amax(dim=(-2, -1))).detach().requires_grad_()
    weights = 3 * logits.softmax(dim=1)
    ScrdLoss(balance=0.0)(feature_distances(teacher, student), feature_distances(noisy, student), weights).backward()
    assert logits.grad.norm() > 1e-3


def test_without_weighting_the_map_is_the_plain_sum():
    model = build(weighting="none").model.eval()
    images = batch().image
    with torch.no_grad():
        teacher = model.teacher(images)
        maps = cosine_distance_maps(teacher, model.decoder(model.bottleneck(teacher)), size=(64, 64))
        expected = model.blur(maps.sum(dim=1, keepdim=True))
        torch.testing.assert_close(model(images).anomaly_map, expected)
    assert model.scale_weights(images) is None


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_score_is_the_reduced_map(reduction):
    model = build(score_reduction=reduction).model.eval()
    result = model(batch().image)
    expected = getattr(result.anomaly_map.flatten(1), "mean" if reduction == "mean" else "amax")(dim=1)
    torch.testing.assert_close(result.pred_score, expected)


def test_noise_is_that_of_images_in_0_to_1(scrd):
    """Adding it to the normalised image, scaled, equals normalising the noisy image."""
    unnormalised = build(pre_processor=PreProcessor(Compose([Resize((64, 64))])))
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    noisy = scrd.add_noise((images - mean) / std, 0) * std + mean
    torch.testing.assert_close(noisy, unnormalised.add_noise(images, 0), rtol=0, atol=1e-6)
    assert 0 < (noisy - images).abs().max() < 0.4  # 0.2 times noise of at most about 1.5


def test_noise_is_fixed_by_seed_epoch_and_batch_and_differs_between_these(scrd, monkeypatch):
    images = batch().image
    assert torch.equal(scrd.add_noise(images, 3), build().add_noise(images, 3))
    assert not torch.equal(scrd.add_noise(images, 3), scrd.add_noise(images, 4))
    assert not torch.equal(scrd.add_noise(images, 3), build(seed=1).add_noise(images, 3))
    first = scrd.add_noise(images, 3)
    monkeypatch.setattr(Scrd, "current_epoch", 1)
    assert not torch.equal(scrd.add_noise(images, 3), first)


def test_without_a_seed_noise_and_weights_follow_the_global_state():
    torch.manual_seed(7)
    first = build(seed=None)
    second = build(seed=None)
    key = "model.decoder.layer1.0.conv1.weight"
    assert not torch.equal(first.state_dict()[key], second.state_dict()[key])
    images = batch().image
    assert not torch.equal(first.add_noise(images, 0), first.add_noise(images, 0))


def test_seed_fixes_the_weights_and_leaves_the_global_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = build(seed=5)
    assert torch.equal(torch.rand(3), expected)
    second = build(seed=5)
    other = second.model.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in first.model.state_dict().items())


def test_labels_and_masks_are_not_read_in_training(scrd):
    model = copy.deepcopy(scrd).train()
    plain = batch()
    poisoned = ImageBatch(
        image=plain.image,
        gt_label=torch.ones(4, dtype=torch.int),
        gt_mask=torch.ones(4, 64, 64, dtype=torch.uint8),
    )
    assert torch.equal(copy.deepcopy(model).training_step(plain, 0), model.training_step(poisoned, 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_is_finite_in_half_precision(random_features, dtype):
    teacher, student, _ = random_features
    scaled = [(100 * feature).to(dtype) for feature in teacher]
    clean = feature_distances(scaled, [(100 * feature).to(dtype) for feature in student])
    same = feature_distances(scaled, scaled)
    assert ScrdLoss()(clean, same, None).isfinite()
    assert ScrdLoss()(same, same, torch.ones(6, 3)).isfinite()


def test_changed_distances_and_their_gradient_are_those_of_changed_positions(random_features):
    teacher, student, noisy = random_features
    student = [feature.clone().requires_grad_() for feature in student]
    changed = torch.zeros(6, 1, 16, 16, dtype=torch.bool)
    changed[:5, :, 4:6, 8:12] = True
    distances = changed_distances(teacher, student, changed)
    expected = 1 - torch.cosine_similarity(teacher[0][:5, :, 4:6, 8:12], student[0][:5, :, 4:6, 8:12])
    torch.testing.assert_close(distances[:5, 0], expected.mean(dim=(1, 2)))
    assert torch.equal(distances[5], torch.zeros(3)), "an image without changes"

    ScrdLoss()(distances, changed_distances(noisy, student, changed), None).backward()
    for scale, feature in enumerate(student):
        mask = changed[:, :, :: 2**scale, :: 2**scale].expand_as(feature)
        assert torch.equal(feature.grad.abs().sum(dim=1, keepdim=True) > 0, mask[:, :1])


def test_local_contrast_shows_the_student_the_anomaly_and_asks_for_the_clean_features():
    """By hand: the whole clean image's distance, and where the anomaly is the ratio of those to clean and noisy."""
    model = build(contrast="local", weighting="none").train()
    images = batch().image
    noisy = model.add_noise(images, 0)
    with torch.no_grad():
        clean, seen = model.model.teacher(images), model.model.teacher(noisy)
        student = copy.deepcopy(model.model).decoder(copy.deepcopy(model.model).bottleneck(seen))
        changed = (noisy != images).any(dim=1, keepdim=True)
        near, far = changed_distances(clean, student, changed), changed_distances(seen, student, changed)
        expected = feature_distances(clean, student).sum(dim=1).mean() + near.sum() / far.sum()
        torch.testing.assert_close(model.training_step(batch(), 0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("given", "kept"), [(True, "ratio"), (False, "none")])
def test_a_bool_of_an_older_version_is_a_contrast(given, kept):
    model = build(contrast=given)
    assert model.contrast == model.hparams.contrast == kept


@pytest.mark.parametrize("size", [0, 32, 100, (64, 100)])
def test_impossible_image_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"image_size: got .*expected multiples of 32 of at least 64"):
        build(image_size=size)


@pytest.mark.parametrize(
    ("name", "value"),
    [("weighting", "both"), ("noise", "perlin"), ("contrast", "global"), ("score_reduction", "median")],
)
def test_unknown_choices_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: got '{value}', expected one of"):
        build(**{name: value})


@pytest.mark.parametrize("value", [(0.0, 0.1), (0.3, 0.2), (0.1, 1.5)])
def test_impossible_noise_sizes_are_refused(value):
    with pytest.raises(ValueError, match=r"noise_size: got .*0 < smallest <= largest <= 1"):
        build(noise_size=value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_strength": 0.0}, "noise_strength, noise_octaves: got 0.0 and 6"),
        ({"noise_octaves": 0}, "noise_strength, noise_octaves: got 0.2 and 0"),
        ({"warmup_steps": -1}, "warmup_steps: got -1, expected 0 or more optimizer steps"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
    ],
)
def test_arguments_that_would_fail_later_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
