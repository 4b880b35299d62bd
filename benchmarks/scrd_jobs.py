"""What `scrd_real.py` can run: every model under the same size, pre-processing, backbone and teacher weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from anomalib.models import Ganomaly, Patchcore, ReverseDistillation
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

FloatArray = npt.NDArray[np.float64]
Scorer = Callable[[list[str], list[str]], FloatArray]


@dataclass(frozen=True)
class ModelOptions:
    """What all trained jobs share."""

    backbone: str
    image_size: int
    seed: int
    teacher_weights: Path | None


@dataclass(frozen=True)
class TrainedJob:
    """A model to train and score.

    Attributes:
        build: Makes the model; the global seed is set before.
        teacher: Whether the teacher's weights are loaded; otherwise they are random.
        epochs: Fixed number of epochs, for a model that makes one pass; None trains until the wall-clock cap.
        batch_size: Training batch of its own recipe; None for the common one.
        uses_datamodule: Whether the model draws its batches from the datamodule itself.
    """

    build: Callable[[ModelOptions], AnomalibModule]
    teacher: bool = True
    epochs: int | None = None
    batch_size: int | None = None
    uses_datamodule: bool = False


@dataclass(frozen=True)
class TrivialJob:
    """A score without a model: a function of training paths and test paths."""

    score: Scorer


def load_teacher(extractor: nn.Module, weights: Path) -> None:
    """Load the layers that the extractor has; one that the file lacks is an error."""
    state = load_file(weights) if weights.suffix == ".safetensors" else torch.load(weights, weights_only=True)
    wanted = extractor.state_dict()
    extractor.load_state_dict({name: state[name].to(wanted[name].dtype) for name in wanted if name in state})


def baseline_arguments(options: ModelOptions) -> dict[str, Any]:
    """Arguments of anomalib's models that give them our size and pre-processing."""
    size = (options.image_size, options.image_size)
    normalize = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    return {
        "backbone": options.backbone,
        "pre_trained": False,
        "pre_processor": PreProcessor(Compose([Resize(size, antialias=False), normalize])),
        "post_processor": False,
        "evaluator": False,
        "visualizer": False,
    }


def _reverse_distillation(options: ModelOptions) -> AnomalibModule:
    model = ReverseDistillation(**baseline_arguments(options))
    if options.teacher_weights:
        load_teacher(model.model.encoder.feature_extractor, options.teacher_weights)
    return model


def _patchcore(options: ModelOptions) -> AnomalibModule:
    model = Patchcore(
        layers=["layer2", "layer3"],
        coreset_sampling_ratio=0.01,
        **baseline_arguments(options),
    )
    if options.teacher_weights:
        load_teacher(model.model.feature_extractor.feature_extractor, options.teacher_weights)
    return model


def _scrd(**changes: object) -> Callable[[ModelOptions], AnomalibModule]:
    def build(options: ModelOptions) -> AnomalibModule:
        from anomalib_medical import Scrd

        return Scrd(
            backbone=options.backbone,
            image_size=options.image_size,
            pre_trained=False,
            teacher_weights=str(options.teacher_weights) if options.teacher_weights else None,
            seed=options.seed,
            evaluator=False,
            visualizer=False,
            **changes,
        )

    return build


def _ddad(**changes: object) -> Callable[[ModelOptions], AnomalibModule]:
    """Build Ddad at the paper's 64x64, whatever the others' size."""

    def build(options: ModelOptions) -> AnomalibModule:
        from anomalib_medical import Ddad

        return Ddad(seed=options.seed, evaluator=False, visualizer=False, **changes)

    return build


def _ganomaly(options: ModelOptions) -> AnomalibModule:
    """Build anomalib's reconstruction model, at 64x64 too."""
    del options
    steps = Compose([Resize((64, 64), antialias=True), Normalize(mean=[0.5] * 3, std=[0.5] * 3)])
    return Ganomaly(
        batch_size=64, pre_processor=PreProcessor(steps), post_processor=False, evaluator=False, visualizer=False
    )


def _grey(path: str) -> FloatArray:
    image = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if image is None:
        msg = f"cannot read {path}"
        raise ValueError(msg)
    return image.astype(np.float64) / 255


def _thumbnails(paths: list[str]) -> FloatArray:
    return np.stack([cv2.resize(_grey(path), (32, 32), interpolation=cv2.INTER_AREA).ravel() for path in paths])


def nearest_thumbnail(train: list[str], test: list[str]) -> FloatArray:
    """Distance to the nearest training image at 32x32 pixels."""
    normal = _thumbnails(train)
    return np.stack([np.linalg.norm(normal - thumbnail, axis=1).min() for thumbnail in _thumbnails(test)])


def _sharpness(train: list[str], test: list[str]) -> FloatArray:
    del train
    images = map(_grey, test)
    return np.array([np.abs(np.diff(x, axis=0)).mean() + np.abs(np.diff(x, axis=1)).mean() for x in images])


def _mean_intensity(train: list[str], test: list[str]) -> FloatArray:
    del train
    return np.array([_grey(path).mean() for path in test])


JOBS: dict[str, TrainedJob | TrivialJob] = {
    "scrd": TrainedJob(_scrd()),
    "rd": TrainedJob(_reverse_distillation),
    "patchcore": TrainedJob(_patchcore, epochs=1),
    "ddad_inter": TrainedJob(_ddad(), teacher=False, batch_size=64, uses_datamodule=True),
    "ddad_intra": TrainedJob(_ddad(score="intra"), teacher=False, batch_size=64, uses_datamodule=True),
    "ddad_reconstruction": TrainedJob(
        _ddad(score="reconstruction", members=1), teacher=False, batch_size=64, uses_datamodule=True
    ),
    "ganomaly": TrainedJob(_ganomaly, teacher=False, batch_size=64),
    "scrd_random": TrainedJob(_scrd(), teacher=False),
    "rd_random": TrainedJob(_reverse_distillation, teacher=False),
    "patchcore_random": TrainedJob(_patchcore, teacher=False, epochs=1),
    "thumbnail_nn": TrivialJob(nearest_thumbnail),
    "sharpness": TrivialJob(_sharpness),
    "mean_intensity": TrivialJob(_mean_intensity),
    "scrd_no_contrast": TrainedJob(_scrd(contrast=False)),
    "scrd_no_weights": TrainedJob(_scrd(weighting="none")),
    "scrd_gaussian": TrainedJob(_scrd(noise="gaussian")),
    "scrd_strength_0.1": TrainedJob(_scrd(noise_strength=0.1)),
    "scrd_strength_0.4": TrainedJob(_scrd(noise_strength=0.4)),
    # Large and strong patches: chosen on phantoms of another seed, for the quickstart.
    "scrd_strong_noise": TrainedJob(_scrd(noise_strength=1.0, noise_size=(0.1, 0.4))),
}

GROUPS: dict[str, list[str]] = {
    "main": [
        "thumbnail_nn",
        "sharpness",
        "mean_intensity",
        "patchcore",
        "rd",
        "scrd",
        "patchcore_random",
        "rd_random",
        "scrd_random",
    ],
    "ddad": [
        "thumbnail_nn",
        "sharpness",
        "mean_intensity",
        "patchcore",
        "rd",
        "ganomaly",
        "ddad_reconstruction",
        "ddad_intra",
        "ddad_inter",
    ],
    "ablation": [
        "scrd_no_contrast",
        "scrd_no_weights",
        "scrd_gaussian",
        "scrd_strength_0.1",
        "scrd_strength_0.4",
        "scrd_strong_noise",
    ],
}


def job_names(requests: list[str]) -> list[str]:
    """Resolve groups and names, in order and without repetition.

    Raises:
        ValueError: If a name is neither a job nor a group.
    """
    names = [name for request in requests for name in GROUPS.get(request, [request])]
    unknown = [name for name in names if name not in JOBS]
    if unknown:
        msg = f"unknown jobs {unknown}; there are {sorted(JOBS)} and the groups {sorted(GROUPS)}."
        raise ValueError(msg)
    return list(dict.fromkeys(names))
