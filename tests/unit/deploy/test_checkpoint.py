"""Models from their checkpoints: what is restored is what was trained."""

import timm
import torch
from anomalib.models import ReverseDistillation, Stfpm
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.models.components.weights import without_download


def save(model, path):
    """Write what Lightning would."""
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint | {"pytorch-lightning_version": "2.5.0"}, path)


def test_a_model_that_is_built_for_its_image_size_scores_as_before(tmp_path):
    """Reverse Distillation keeps the size of its maps, which is in no tensor and no hyper-parameter."""
    pre_processor = PreProcessor(Resize((64, 64), antialias=False))
    layers = ("layer1", "layer2", "layer3")
    model = ReverseDistillation("resnet18", layers, pre_trained=False, pre_processor=pre_processor).eval()
    save(model, tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt", "ReverseDistillation")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = model.model(images), loaded.model(images)
    assert after.anomaly_map.shape == before.anomaly_map.shape == (2, 1, 64, 64)
    torch.testing.assert_close(after.pred_score, before.pred_score)


def test_loading_downloads_nothing_whatever_the_model(tmp_path, monkeypatch):
    """STFPM asks the hub for weights and has no argument against it."""
    with without_download():
        model = Stfpm()
    save(model, tmp_path / "model.ckpt")
    original = timm.create_model

    def create_model(*args, **kwargs):
        assert not kwargs.get("pretrained")
        return original(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", create_model)
    loaded = load_model(tmp_path / "model.ckpt", "Stfpm")
    for name, value in model.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
