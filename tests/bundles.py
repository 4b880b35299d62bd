"""Small trained checkpoints, and bundles of them."""

from pathlib import Path

import torch
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule

from anomalib_medical import D24fad, MedicalFolder
from tests.exports import images


def train(model: AnomalibModule, root: Path, folder: Path) -> Path:
    """Train for one epoch on a folder; returns the checkpoint."""
    engine = Engine(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder, devices=1
    )
    engine.fit(model, datamodule=MedicalFolder(root=root, train_batch_size=4, eval_batch_size=4, num_workers=0))
    checkpoint = folder / "model.ckpt"
    engine.trainer.save_checkpoint(checkpoint, weights_only=True)
    return checkpoint


def save_few_shot(folder: Path, support: int) -> Path:
    """Save an untrained D24fad with some support images and, from two on, a threshold."""
    model = D24fad(backbone="resnet18", image_size=64, pre_trained=False, seed=0)
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
