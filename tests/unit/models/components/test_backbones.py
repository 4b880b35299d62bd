import pytest
import torch

from anomalib_medical import D24fad, Scrd
from anomalib_medical.models.components import Teacher
from anomalib_medical.models.components.backbones import feature_stages, normalization
from anomalib_medical.models.components.student import Bottleneck, Decoder


@pytest.mark.parametrize(
    ("backbone", "layers", "reductions"),
    [
        ("resnet18", (1, 2, 3), [4, 8, 16]),
        ("tf_efficientnet_lite0", (1, 2, 3), [4, 8, 16]),
        ("convnext_atto", (0, 1, 2), [4, 8, 16]),
        ("vit_tiny_patch16_224", (3, 7, 11), [16, 16, 16]),
    ],
)
def test_stages_channels_and_strides_are_read_from_the_network(backbone, layers, reductions):
    teacher = Teacher(backbone)
    assert (teacher.layers, teacher.reductions) == (layers, reductions)
    found = [(each.shape[1], 64 // each.shape[2]) for each in teacher(torch.rand(1, 3, 64, 64))]
    assert found == list(zip(teacher.channels, reductions, strict=True))


def test_nothing_behind_the_deepest_stage_is_computed():
    network = Teacher("tf_efficientnet_lite0").extractor["feature_extractor"]
    assert len(network.blocks) == 5
    assert len(Teacher("tf_efficientnet_lite0", layers=(1,), count=1).extractor["feature_extractor"].blocks) == 2


def test_stages_can_be_chosen():
    model = Scrd(backbone="resnet18", layers=(2, 3, 4), image_size=128, pre_trained=False).eval()
    assert model.model.teacher.reductions == [8, 16, 32]
    assert model.model(torch.rand(1, 3, 128, 128)).anomaly_map.shape == (1, 1, 128, 128)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (
            Scrd,
            {"layers": (1, 2, 9)},
            r"layers: got \[1, 2, 9\], expected 3 .* of resnet18, in order, of: 0 \(stride 2\)",
        ),
        (Scrd, {"layers": (1, 2)}, r"layers: got \[1, 2\], expected 3 different ones"),
        (Scrd, {"layers": (3, 2, 1)}, r"expected 3 different ones of resnet18, in order"),
        (D24fad, {"layers": (1, 2, 3)}, r"layers: got \[1, 2, 3\], expected 4 different ones"),
        (Scrd, {"image_size": 80}, r"image_size: got 80, expected multiples of 32 of at least 64"),
        (Scrd, {"backbone": "vit_small_patch14_dinov2", "image_size": 64}, r"got 64, expected multiples of 28 of at"),
        (Scrd, {"backbone": "tf_efficientnet_light0"}, r"Near: tf_efficientnet_lite0"),
        (
            Scrd,
            {"backbone": "resnet18.in1k"},
            r"got 'resnet18.in1k', expected resnet18, or one of its weights: .*tv_in1k",
        ),
        (Scrd, {"backbone": "levit_128"}, r"levit_128 has no stages of the strides 4, 8, 16; it has 0 \(stride 16\)"),
        (Scrd, {"backbone": "inception_v3"}, r"inception_v3 gives no pyramid of features whose strides divide images"),
    ],
)
def test_what_a_backbone_does_not_have_is_refused_in_one_sentence(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"backbone": "resnet18", "image_size": 64, "pre_trained": False} | arguments)


def test_images_are_normalised_as_the_weights_were_made():
    assert normalization("tf_efficientnet_lite0")[0] == (0.5, 0.5, 0.5)
    assert normalization("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = Scrd(backbone="tf_efficientnet_lite0", image_size=64, pre_trained=False)
    white = model.pre_processor(torch.ones(1, 3, 64, 64))
    torch.testing.assert_close(white, torch.ones(1, 3, 64, 64))
    torch.testing.assert_close(model.input_scale, torch.full((3,), 2.0))


@pytest.mark.parametrize("reductions", [(4, 8, 16), (8, 8, 16), (14, 14, 14)])
def test_the_student_gives_back_what_it_was_given(reductions):
    channels, side = (8, 12, 20), 4 * max(reductions)
    features = [
        torch.rand(2, count, side // each, side // each) for count, each in zip(channels, reductions, strict=True)
    ]
    bottleneck = Bottleneck(channels, reductions)
    embedding = bottleneck(features)
    assert embedding.shape == (2, bottleneck.out_channels, 2, 2)
    rebuilt = Decoder(bottleneck.out_channels, 2 * reductions[-1], channels, reductions)(embedding)
    assert [each.shape for each in rebuilt] == [each.shape for each in features]


def test_a_small_teacher_has_a_small_student():
    trained = {
        name: sum(
            each.numel() for each in Scrd(backbone=name, pre_trained=False).model.parameters() if each.requires_grad
        )
        for name in ("tf_efficientnet_lite0", "resnet18")
    }
    assert trained["tf_efficientnet_lite0"] < trained["resnet18"] / 4


def test_a_networks_stages_are_found_without_drawing_random_numbers():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    feature_stages.cache_clear()
    feature_stages("tf_efficientnet_lite0")
    assert torch.equal(state, torch.random.get_rng_state())
