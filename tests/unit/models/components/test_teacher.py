import hashlib

import pytest
import safetensors.torch
import timm
import torch

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import Teacher


@pytest.fixture(scope="module")
def weights():
    return timm.create_model("resnet18", num_classes=0).state_dict()


@pytest.fixture
def teacher():
    return Teacher("resnet18")


def test_never_in_train_mode_and_without_gradient(teacher):
    parent = torch.nn.Sequential(teacher).train()
    assert parent.training
    assert not any(module.training for module in teacher.modules())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    features = teacher(torch.rand(2, 3, 64, 64, requires_grad=True))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(feature.requires_grad for feature in features)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_feature_shapes(teacher):
    shapes = [tuple(feature.shape) for feature in teacher(torch.rand(2, 3, 64, 96))]
    assert shapes == [(2, 64, 16, 24), (2, 128, 8, 12), (2, 256, 4, 6)]


@pytest.mark.parametrize("extension", ["safetensors", "pth"])
def test_loads_a_local_file_exactly(teacher, weights, tmp_path, extension):
    path = tmp_path / f"gewichte-é.{extension}"
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    if extension == "pth":
        torch.save(half, path)
    else:
        safetensors.torch.save_file(half, path)
    digest = teacher.load_file(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = teacher.extractor["feature_extractor"].state_dict()
    assert torch.equal(loaded["layer3.1.conv2.weight"], half["layer3.1.conv2.weight"].float())
    assert loaded["conv1.weight"].dtype == torch.float32


def test_a_classifier_in_the_file_is_left_out(teacher, tmp_path):
    path = tmp_path / "full.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    teacher.load_file(path)


@pytest.mark.parametrize("other", ["resnet34", "resnet50"])
def test_another_architectures_file_is_refused(teacher, tmp_path, other):
    path = tmp_path / "other.pth"
    torch.save(timm.create_model(other, num_classes=0).state_dict(), path)
    before = teacher.state_dict()["extractor.feature_extractor.conv1.weight"].clone()
    with pytest.raises(MedicalError, match=r"other\.pth does not hold the weights of resnet18.*--model\.backbone"):
        teacher.load_file(path)
    assert torch.equal(before, teacher.state_dict()["extractor.feature_extractor.conv1.weight"])


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02garbage"])
def test_an_unreadable_file_is_named(teacher, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MedicalError, match=rf"{name} could not be read"):
        teacher.load_file(path)


def test_a_missing_file_is_named(teacher, tmp_path):
    with pytest.raises(MedicalError, match=r"there is no file .*nowhere.pth"):
        teacher.load_file(tmp_path / "nowhere.pth")


def test_a_file_that_would_run_code_is_refused(teacher, tmp_path):
    class Boom:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "boom.pth"
    torch.save({"conv1.weight": Boom()}, path)
    with pytest.raises(MedicalError, match=r"boom\.pth could not be read"):
        teacher.load_file(path)


def test_hub_weights_are_the_papers(teacher, weights, monkeypatch):
    asked = []
    build = timm.create_model

    def create_model(name, pretrained, **arguments):
        if not pretrained:
            return build(name, pretrained=False, **arguments)
        asked.append((name, pretrained))
        network = timm.models.resnet18()
        network.load_state_dict(weights, strict=False)
        return network

    monkeypatch.setattr("anomalib_medical.models.components.weights.timm.create_model", create_model)
    assert teacher.load_pretrained() == "resnet18.tv_in1k"
    assert asked == [("resnet18.tv_in1k", True)]
    loaded = teacher.extractor["feature_extractor"].state_dict()
    assert torch.equal(loaded["layer2.0.conv1.weight"], weights["layer2.0.conv1.weight"])


def test_without_a_network_the_error_names_the_four_ways_out(teacher, monkeypatch):
    def create_model(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("anomalib_medical.models.components.weights.timm.create_model", create_model)
    with pytest.raises(MedicalError) as caught:
        teacher.load_pretrained()
    message = str(caught.value)
    assert "resnet18.tv_in1k" in message
    for way in ("cache", "anomalib-medical[teacher]", "--model.teacher_weights", "--model.pre_trained false"):
        assert way in message


def test_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match=r"got 'resnet19', which timm does not know. Near: .*resnet1.*list_models"):
        Teacher("resnet19")
