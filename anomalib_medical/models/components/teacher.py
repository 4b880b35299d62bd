"""The frozen teacher of the distillation models, and what their Lightning modules share because of it.

Weights that cannot be had, or do not fit, are a MedicalError.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.pre_processing import PreProcessor
from torch import nn, optim
from torchvision.transforms.v2 import Compose, Normalize, Resize

from .backbones import RESIDUAL, architecture, choose_layers, create, feature_stages, normalization
from .module import MedicalModuleMixin
from .numerics import constant
from .resize import AntialiasedPreProcessor
from .weights import load_backbone, load_pretrained

logger = logging.getLogger(__name__)


class Teacher(nn.Module):
    """Frozen feature pyramid of any timm network that has one.

    Always in eval mode whatever its parent does, without gradient, and with the random weights of its construction
    until :meth:`load_file` or :meth:`load_pretrained` is called, so that building a model never needs a network.

    Args:
        backbone: timm name, with or without a pretrained tag (``resnet18.a1_in1k``).
        layers: Which of timm's feature stages to return, fine to coarse; None for those of strides 4, 8, 16 (and 32),
            or, of a network with one stride, blocks at equal distances.
        count: How many stages if ``layers`` is None.
        image_size: Height and width of the images, which some transformers must know.

    Raises:
        ValueError: If there is no such network, or it has no such stages.
    """

    def __init__(
        self,
        backbone: str,
        layers: Sequence[int] | None = None,
        count: int = 3,
        image_size: tuple[int, int] = (256, 256),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.architecture = architecture(backbone)
        stages = feature_stages(self.architecture, image_size)
        #: timm's indices of the stages, their channels, and how many pixels of the image a position of each is wide.
        self.layers = choose_layers(self.architecture, stages, layers, count)
        self.channels = [stages[layer].channels for layer in self.layers]
        self.reductions = [stages[layer].reduction for layer in self.layers]
        network = create(self.architecture, image_size, out_indices=self.layers)
        # The name that checkpoints have known it by from the start.
        self.extractor = nn.ModuleDict({"feature_extractor": network})
        self._channels_last = getattr(network, "output_fmt", None) == "NHWC"
        self.requires_grad_(requires_grad=False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode: a teacher's batch-norm statistics never move."""
        del mode
        return super().train(mode=False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features ``(B, C_k, H / r_k, W / r_k)`` of each stage k, with reduction r, of normalised ``(B, 3, H, W)``."""
        with torch.no_grad():
            features = list(self.extractor["feature_extractor"](images))
        return [each.permute(0, 3, 1, 2) for each in features] if self._channels_last else features

    def load_file(self, path: str | Path) -> str:
        """Load weights as :func:`load_backbone` does; returns the file's sha256."""
        digest = load_backbone(self.extractor["feature_extractor"], path, self.architecture)
        logger.info("Teacher %s: weights from %s, sha256 %s.", self.architecture, path, digest)
        return digest

    def load_pretrained(self) -> str:
        """Load pretrained weights as :func:`load_pretrained` does; returns their name."""
        return load_pretrained(self.extractor["feature_extractor"], self.backbone)


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

    @staticmethod
    def teacher_pre_processor(backbone: str, image_size: tuple[int, int], *, normalize: bool = True) -> PreProcessor:
        """Resize, and normalise as the teacher's weights want it.

        Without antialiasing for the papers' residual networks, whose figures are made so; with it for all others.
        """
        mean, std = normalization(backbone)
        antialias = architecture(backbone) not in RESIDUAL
        resize = Resize(list(image_size), antialias=antialias)
        transform = Compose([resize, Normalize(mean=list(mean), std=list(std))]) if normalize else resize
        return AntialiasedPreProcessor(transform) if antialias else PreProcessor(transform)

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
            self.teacher_source = teacher.load_pretrained()
        else:
            logger.warning("The teacher has random weights (pre_trained: false and no teacher_weights).")

    @property
    def input_scale(self) -> torch.Tensor:
        """One over the pre-processor's standard deviations, ``(3,)``: what 1 in the image is to the network."""
        transform = getattr(self.pre_processor, "transform", None)
        steps = extract_transforms_by_type(transform, Normalize) if transform is not None else []
        return 1 / constant(tuple(steps[0].std) if steps else (1.0, 1.0, 1.0), self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say where the teacher came from."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher_source"] = self.teacher_source

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the teacher over."""
        super().on_load_checkpoint(checkpoint)
        self.teacher_source = checkpoint.get("teacher_source")
