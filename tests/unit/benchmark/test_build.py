"""What a plan builds: the same weights for every model's backbone, and the images as these want them."""

from dataclasses import asdict
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from anomalib import LearningType
from anomalib.models import Stfpm
from safetensors.torch import save_file

from anomalib_medical.benchmark.build import build_model
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.benchmark.training import train_and_score
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.weights import find_package, load_into_backbone, without_download

ONE = {"a": {"class_path": "Phantom"}}
CONVOLUTION, QKV = "layer2.0.conv1.weight", "blocks.2.attn.qkv.weight"
LITE = "tf_efficientnet_lite0"
LITE_LAYERS = ["blocks.1", "blocks.2", "blocks.4"]


class ZeroShot(Stfpm):
    """A model that only scores, as WinCLIP does."""

    learning_type = LearningType.ZERO_SHOT

    def training_step(self, *_args, **_kwargs):
        raise AssertionError("there is nothing to train")


def plan(**changes):
    return make_plan({"datasets": ONE, "image_size": 64} | changes, "plan.yaml")


def build(entry, **changes):
    """Build the only model of a plan."""
    made = plan(models={"m": entry}, **changes)
    (job,) = made.jobs.values()
    return build_model(made, job)


def write(folder: Path, network, name="teacher.safetensors") -> str:
    save_file(network.state_dict(), folder / name)
    return str(folder / name)


def holds(model, key, value):
    return [torch.equal(own, value) for name, own in model.state_dict().items() if name.endswith(key)]


@pytest.mark.parametrize("name", ["Patchcore", "Padim", "Stfpm", "ReverseDistillation", "Scrd"])
def test_all_models_get_the_same_teacher(name, tmp_path):
    weights = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(weights, tmp_path / "teacher.safetensors")
    model, source = build({"class_path": name}, teacher_weights=str(tmp_path / "teacher.safetensors"))
    assert source == "file"
    if name == "Scrd":
        model.load_teacher()  # which the start of a training does
    loaded = [value for own, value in model.state_dict().items() if own.endswith(CONVOLUTION)]
    assert any(torch.equal(value, weights[CONVOLUTION]) for value in loaded)
    assert model.pre_processor.transform.transforms[0].antialias is False
    assert model.pre_processor.transform.transforms[0].size == [64, 64]


@pytest.mark.parametrize(
    ("entry", "backbone", "key"),
    [
        ({"class_path": "Dfm"}, "resnet18", CONVOLUTION),
        ({"class_path": "Cfa"}, "resnet18", CONVOLUTION),
        ({"class_path": "Supersimplenet"}, "resnet18", CONVOLUTION),
        ({"class_path": "Fastflow"}, "resnet18", CONVOLUTION),
        ({"class_path": "MHPatchcore"}, "resnet18", CONVOLUTION),
        (
            {"class_path": "Rad", "init_args": {"layers": [3, 7, 11]}},
            "vit_small_patch16_dinov3",
            QKV,
        ),
        (
            {"class_path": "SuperADD", "init_args": {"layers": [3]}},
            "vit_small_patch16_dinov3",
            QKV,
        ),
        (
            {"class_path": "Dinomaly", "init_args": {"encoder_name": "vit_small_patch14_reg4_dinov2"}},
            "vit_small_patch14_reg4_dinov2",
            QKV,
        ),
        (
            {"class_path": "FoundAD", "init_args": {"encoder_name": "dinov2_vit_small_14", "image_size": 56}},
            "vit_small_patch14_dinov2",
            QKV,
        ),
    ],
    ids=lambda value: value.get("class_path") if isinstance(value, dict) else "",
)
def test_a_file_reaches_the_backbone_wherever_a_model_keeps_it(entry, backbone, key, tmp_path):
    network = timm.create_model(backbone, pretrained=False)
    file = write(tmp_path, network)
    model, source = build(entry, backbone=backbone, teacher_weights=file)
    assert source == "file"
    assert any(holds(model, key, network.state_dict()[key]))


def test_a_student_of_the_same_form_keeps_its_own_weights(tmp_path):
    network = timm.create_model("resnet18", pretrained=False)
    model, _ = build({"class_path": "Stfpm"}, teacher_weights=write(tmp_path, network))
    assert holds(model.model.teacher_model, CONVOLUTION, network.state_dict()[CONVOLUTION]) == [True]
    assert holds(model.model.student_model, CONVOLUTION, network.state_dict()[CONVOLUTION]) == [False]


def test_backbones_of_one_form_all_get_the_file_and_of_several_none(tmp_path):
    network = torchvision.models.resnet18()
    entry = {"class_path": "UniNet", "init_args": dict.fromkeys(("student_backbone", "teacher_backbone"), "resnet18")}
    model, source = build(entry, teacher_weights=write(tmp_path, network))
    assert source == "file"
    assert sum(holds(model.model.teachers, CONVOLUTION, network.state_dict()[CONVOLUTION])) == 2
    two = torch.nn.Module()
    with without_download() as asked:
        two.first, two.second = (timm.create_model(name, pretrained=True) for name in ("resnet18", "resnet34"))
    with pytest.raises(MedicalError, match=r"Module has 2 different pretrained backbones \(resnet18, resnet34\)"):
        load_into_backbone(two, asked, tmp_path / "teacher.safetensors")


def test_a_file_for_another_backbone_or_for_none_is_refused(tmp_path):
    file = write(tmp_path, timm.create_model("resnet18", pretrained=False))
    dino = {"class_path": "Dinomaly", "init_args": {"encoder_name": "vit_small_patch14_reg4_dinov2"}}
    with pytest.raises(MedicalError, match="does not hold the weights of vit_small_patch14_reg4_dinov2"):
        build(dino, teacher_weights=file)
    with pytest.raises(MedicalError, match="GanomalyModel has no pretrained backbone"):
        build({"class_path": "Ganomaly", "init_args": {"teacher_weights": file}})
    # The plan's is for those that have one; an entry may do without.
    assert build({"class_path": "Ganomaly"}, teacher_weights=file)[1] == "none"
    dino["init_args"]["teacher_weights"] = None
    assert build(dino, teacher_weights=file)[1] == "random"


def test_an_entry_has_its_own_teacher_beside_the_plans(tmp_path):
    files = {
        name: write(tmp_path, timm.create_model(name, pretrained=False), f"{name}.safetensors")
        for name in ("resnet18", "resnet34")
    }
    own = {"backbone": "resnet34", "teacher_weights": files["resnet34"]}
    models = {"plans": {"class_path": "Padim"}, "own": {"class_path": "Patchcore", "init_args": own}}
    made = plan(models=models, teacher_weights=files["resnet18"]).with_teacher_digest()
    digests = {job.model: made.teacher_digest(job) for job in made.jobs.values()}
    assert digests["plans"] == made.teacher_sha256
    assert digests["own"] == made.own_teachers[files["resnet34"]]
    assert len({*digests.values()} - {""}) == 2
    assert [build_model(made, job)[1] for job in made.jobs.values()] == ["file", "file"]
    # A run folder's plan is read again.
    assert make_plan(asdict(made), "plan.yaml") == made
    with pytest.raises(MedicalError, match=r"there is no file gone\.pth"):
        plan(models={"m": {"class_path": "Padim", "init_args": {"teacher_weights": "gone.pth"}}}).with_teacher_digest()


@pytest.mark.skipif(find_package(LITE) is None, reason="the extra [teacher] is not installed")
@pytest.mark.parametrize("name", ["Patchcore", "Padim", "Stfpm"])
def test_anomalibs_models_get_the_weights_of_a_package(name):
    """Nothing is asked of the hub, and images are normalised as the weights want it."""
    entry = {"class_path": name, "init_args": {"backbone": LITE, "layers": LITE_LAYERS, "pre_trained": True}}
    if name == "Padim":
        entry["init_args"]["n_features"] = 20  # it knows how many for two residual networks only
    if name == "Stfpm":
        entry["init_args"].pop("pre_trained")
    model, source = build(entry, pre_trained=name == "Stfpm")
    assert source == "package"
    assert model.pre_processor.transform.transforms[1].mean == [0.5, 0.5, 0.5]
    weights = torch.load(find_package(LITE)[-1], weights_only=True)
    assert any(holds(model, "conv_stem.weight", weights["_conv_stem.weight"]))
    backbone = model.model.teacher_model if name == "Stfpm" else model.model.feature_extractor
    assert backbone.layers == LITE_LAYERS  # none is unknown to timm


@pytest.mark.parametrize("asked", [False, True])
def test_a_model_that_asks_for_weights_of_the_hub_gets_them(asked, monkeypatch):
    """Whatever the plan gives to the others."""
    create, given = timm.create_model, []

    def without_network(*args, pretrained=False, **kwargs):
        given.append(pretrained)
        return create(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_network)
    _, source = build({"class_path": "Padim", "init_args": {"pre_trained": asked}})
    assert source == ("hub" if asked else "random")
    assert any(given) is asked


@pytest.mark.parametrize("name", ["Padim", "Scrd"])
def test_a_model_that_asks_for_weights_of_the_hub_does_not_get_the_plans(name, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **given: create(*args, **given | {"pretrained": False}))
    entry = {"class_path": name, "init_args": {"pre_trained": True}}
    model, source = build(entry, teacher_weights="others.pth")
    assert source == "hub"
    assert getattr(model, "teacher_weights", None) is None


def test_a_model_that_has_nothing_to_train_is_scored_as_it_is(tmp_path):
    data = {
        "root": str(tmp_path),
        "image_size": 64,
        "train_count": 24,
        "test_normal_count": 4,
        "test_abnormal_count": 4,
    }
    made = plan(
        datasets={"a": {"class_path": "Phantom", "init_args": data}},
        models={"m": {"class_path": "tests.unit.benchmark.test_build.ZeroShot"}},
    )
    (job,) = made.jobs.values()
    result = train_and_score(made, job, "cpu", print)
    assert not result.steps
    assert len(result.test.scores) == 8
    assert torch.isfinite(result.post_processor.image_threshold)
