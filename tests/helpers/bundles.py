"""Small trained checkpoints, and bundles of them, each made once for all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore, ReverseDistillation, Stfpm
from anomalib.models.components import AnomalibModule
from anomalib.models.image.super_add import SuperADDPostProcessor

from anomalib_medical import D24fad, Ddad, MedicalFolder, Scrd
from anomalib_medical.cli import main as cli
from anomalib_medical.models.components.weights import without_download
from anomalib_medical.post_processing import MedicalPostProcessor
from tests.helpers.exports import images

_RESNET = {"backbone": "resnet18", "pre_trained": False}
MODELS: dict[str, Callable[[], AnomalibModule]] = {
    "Scrd": lambda: Scrd(image_size=64, seed=0, **_RESNET),
    "Ddad": lambda: Ddad(image_size=32, members=2, score="intra", seed=0),
    "D24fad": lambda: D24fad(image_size=64, seed=0, **_RESNET),
    "Patchcore": lambda: Patchcore(
        layers=("layer2",),
        pre_processor=AnomalibModule.configure_pre_processor((64, 64)),
        post_processor=MedicalPostProcessor(target_specificity=0.5, image_sensitivity=0.6),
        **_RESNET,
    ),
    "Padim": lambda: Padim(layers=["layer1"], n_features=20, **_RESNET),
    "ReverseDistillation": lambda: ReverseDistillation(
        layers=["layer1", "layer2", "layer3"], post_processor=MedicalPostProcessor(threshold="f1"), **_RESNET
    ),
    "Stfpm": lambda: _stfpm(post_processor=SuperADDPostProcessor(image_sensitivity=0.4)),
}
# Of anomalib, which does not name the class in its checkpoints.
FOREIGN = {"Patchcore", "Padim", "ReverseDistillation", "Stfpm"}


def _stfpm(**kwargs) -> Stfpm:
    with without_download():
        return Stfpm(backbone="resnet18", layers=["layer1"], **kwargs)


class Bundles:
    """Checkpoints and FP32 bundles of `MODELS`. Do not write to them.

    Args:
        data: The folder that models are trained on.
        folder: Where they are made, when they are first asked for.
    """

    def __init__(self, data: Path, folder: Path) -> None:
        self._data = data
        self._folder = folder
        self._models: dict[str, AnomalibModule] = {}

    def checkpoint(self, name: str) -> Path:
        """Train for an epoch; of D24fad, take random weights and three support images."""
        made = self._folder / name / "model.ckpt"
        if not made.exists():
            model = self._models[name] = MODELS[name]()
            if name == "D24fad":
                save_few_shot(made.parent, support=3, model=model)
            else:
                train(model, self._data, made.parent)
        return made

    def model(self, name: str) -> AnomalibModule:
        """The model itself, as it came out of the training and was never read from a file."""
        self.checkpoint(name)
        return self._models[name].eval()

    def bundle(self, name: str) -> Path:
        """Make a bundle by the command line."""
        made = self._folder / name / "bundle"
        if not made.exists():
            self.command(name, made)
        return made

    def command(self, name: str, output: Path, *options: object) -> None:
        """Make a bundle of a checkpoint by the command line, with other options."""
        given = ["bundle", "--ckpt_path", self.checkpoint(name), "--output", output, *options]
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
            cli.main([str(word) for word in [*given, *(["--model", name] if name in FOREIGN else [])]])


def train(model: AnomalibModule, root: Path, folder: Path) -> Path:
    """Train for one epoch on a folder; returns the checkpoint."""
    engine = Engine(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder, devices=1
    )
    engine.fit(model, datamodule=MedicalFolder(root=root, train_batch_size=4, eval_batch_size=4, num_workers=0))
    checkpoint = folder / "model.ckpt"
    engine.trainer.save_checkpoint(checkpoint, weights_only=True)
    return checkpoint


def save_few_shot(folder: Path, support: int, model: AnomalibModule | None = None) -> Path:
    """Save an untrained D24fad with some support images and, from two on, a threshold."""
    model = model or MODELS["D24fad"]()
    with torch.no_grad():
        # With fresh statistics all maps are alike.
        model.model.train().encode(model.pre_processor(images((64, 64), count=8)))
    if support:
        model.eval().set_support(list(images((64, 64), count=support)))
        model.recalibrate()
    checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.5.0"}
    checkpoint["hyper_parameters"] = dict(model.hparams)
    model.on_save_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, folder / "model.ckpt")
    return folder / "model.ckpt"
