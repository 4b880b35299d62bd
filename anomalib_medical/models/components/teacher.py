"""The frozen teacher of the distillation models, and what their Lightning modules share because of it.

Weights that cannot be had, or do not fit, are a MedicalError.
"""

import contextlib
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.models.components import TimmFeatureExtractor
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import nn, optim
from torchvision.transforms.v2 import Normalize

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import sha256

from .module import MedicalModuleMixin

logger = logging.getLogger(__name__)

#: The architectures that anomalib's bottleneck and decoder fit.
BACKBONES = ("wide_resnet50_2", "resnet18", "resnet34", "resnet50")
# The papers use torchvision's first ImageNet weights; timm's own default tags are others.
_PAPER_TAG = "tv_in1k"


class Teacher(nn.Module):
    """Frozen feature pyramid of a timm network.

    Always in eval mode whatever its parent does, without gradient, and with the random weights of its construction
    until :meth:`load_file` or :meth:`load_hub` is called, so that building a model never needs a network.

    Args:
        backbone: timm name, one of :data:`BACKBONES`, with or without a pretrained tag (``resnet18.a1_in1k``).
        layers: Which of the residual stages 1..4 to return.
    """

    def __init__(self, backbone: str, layers: tuple[int, ...] = (1, 2, 3)) -> None:
        super().__init__()
        self.backbone = backbone
        self.architecture = architecture(backbone)
        self.extractor = TimmFeatureExtractor(self.architecture, layers=layers, pre_trained=False)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode: a teacher's batch-norm statistics never move."""
        del mode
        return super().train(mode=False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features ``(B, C_k, H / 2**(k + 1), W / 2**(k + 1))`` of each stage k of normalised ``(B, 3, H, W)``."""
        return list(self.extractor(images).values())

    def load_file(self, path: str | Path) -> str:
        """Load weights as :func:`load_backbone` does; returns the file's sha256."""
        digest = load_backbone(self.extractor.feature_extractor, path, self.architecture)
        logger.info("Teacher %s: weights from %s, sha256 %s.", self.architecture, path, digest)
        return digest

    def load_hub(self) -> str:
        """Load timm's pretrained weights, from its cache or the model hub; returns their name."""
        name = self.backbone if "." in self.backbone else f"{self.backbone}.{_PAPER_TAG}"
        try:
            network = timm.create_model(name, pretrained=True)
        except Exception as error:
            # The hub client's errors share no base class but Exception, and each of them means the same to the user.
            msg = (
                f"The teacher's weights {name} are not in the local cache and could not be downloaded "
                f"({type(error).__name__}). Three ways out: (1) run once with access to the model hub, or copy its "
                "cache; (2) give a local file: --model.teacher_weights /path/to/weights.safetensors (or .pth); "
                "(3) train with a random teacher: --model.pre_trained false (for trials only: scores will be poor)."
            )
            raise MedicalError(msg) from error
        _load(self.extractor.feature_extractor, network.state_dict(), name, self.architecture)
        logger.info("Teacher: weights %s.", name)
        return name


class DistillationMixin(MedicalModuleMixin):
    """A frozen teacher, whose weights come from the hub, a file, or nowhere.

    A class that uses it keeps ``pre_trained``, ``teacher_weights`` and ``learning_rate`` as attributes, and its network
    has a ``teacher``.
    """

    pre_trained: bool
    teacher_weights: str | None
    learning_rate: float
    # What the teacher's weights are: a hub name, a file's sha256, or None as long as they are random.
    teacher_source: str | None = None

    def configure_optimizers(self) -> optim.Adam:
        """Adam over all that is not frozen (the papers' recipe)."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return optim.Adam(trained, lr=self.learning_rate, betas=(0.5, 0.999))

    def on_fit_start(self) -> None:
        """Load the teacher's weights, unless a checkpoint brought them."""
        super().on_fit_start()
        # Not in the constructor: testing, predicting, exporting and resuming never need the file or the hub.
        if not self._restored:
            self.load_teacher()
            self._restored = True

    def load_teacher(self) -> None:
        """Give the teacher the weights that the arguments name: a file's, the hub's, or none."""
        teacher: Teacher = self.model.teacher  # type: ignore[assignment]  # every model of ours has one
        if self.teacher_weights is not None:
            self.teacher_source = "sha256:" + teacher.load_file(self.teacher_weights)
        elif self.pre_trained:
            self.teacher_source = teacher.load_hub()
        else:
            logger.warning("The teacher has random weights (pre_trained: false and no teacher_weights).")

    @property
    def input_scale(self) -> torch.Tensor:
        """One over the pre-processor's standard deviations, ``(3,)``: what 1 in the image is to the network."""
        transform = getattr(self.pre_processor, "transform", None)
        steps = extract_transforms_by_type(transform, Normalize) if transform is not None else []
        return 1 / torch.tensor(steps[0].std if steps else [1.0, 1.0, 1.0], device=self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say where the teacher came from."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher_source"] = self.teacher_source

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the teacher over."""
        super().on_load_checkpoint(checkpoint)
        self.teacher_source = checkpoint.get("teacher_source")


def load_backbone(network: nn.Module, path: str | Path, architecture: str) -> str:
    """Load a backbone's weights from a ``.safetensors`` or ``.pth`` file; returns the file's sha256.

    Its keys are timm's (or torchvision's); a classifier and stages behind the last one used are left out.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"teacher_weights: there is no file {path}. Give a .safetensors or .pth file of {architecture}."
        raise MedicalError(msg)
    try:
        weights = load_state_dict(str(path), device="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        msg = (
            f"teacher_weights: {path} could not be read as a state dict ({type(error).__name__}). "
            f"Give a .safetensors or .pth file that holds the tensors of {architecture}."
        )
        raise MedicalError(msg) from error
    _load(network, weights, str(path), architecture)
    return sha256(path)


def _load(network: nn.Module, weights: dict[str, torch.Tensor], source: str, architecture: str) -> None:
    """Load ``weights`` strictly, but for the classifier and the stages that are not used."""
    own = network.state_dict()
    stages = [f"layer{number}." for number in range(1, 5)]
    unused = ("fc.", *(stage for stage in stages if not any(key.startswith(stage) for key in own)))
    given = {key: value for key, value in weights.items() if key in own or not key.startswith(unused)}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    shapes = [key for key in given if key in own and given[key].shape != own[key].shape]
    if missing or unknown or shapes:
        problems = {"missing": missing, "unknown": unknown, "of another shape": shapes}
        found = ", ".join(f"{len(keys)} {what} (such as {keys[0]})" for what, keys in problems.items() if keys)
        msg = (
            f"{source} does not hold the weights of {architecture}: of {len(own)} tensors {found}. "
            f"Give weights of {architecture}, or set --model.backbone to the architecture of the file."
        )
        raise MedicalError(msg)
    network.load_state_dict({key: given.get(key, own[key]).to(own[key].dtype) for key in own})


def architecture(backbone: str) -> str:
    """A timm name without its pretrained tag, after checking that it is one that the decoders fit."""
    name = backbone.partition(".")[0]
    if name not in BACKBONES:
        msg = f"backbone: got {backbone!r}, expected one of {', '.join(BACKBONES)} (a timm tag may follow a dot)."
        raise ValueError(msg)
    return name


@contextlib.contextmanager
def without_download() -> Iterator[None]:
    """Let timm build networks without weights: STFPM takes those of the hub and has no argument against it."""
    original = timm.create_model

    def create_model(*args: Any, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - passed on
        return original(*args, **{**kwargs, "pretrained": False})

    with patch.object(timm, "create_model", create_model):
        yield
