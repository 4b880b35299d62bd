"""The network of SCRD."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_medical.models.components import GaussianBlur, MapScore, Teacher, cosine_distance_maps
from anomalib_medical.models.components.student import build_bottleneck, build_decoder

SCALES = 3


class ScrdFeatures(NamedTuple):
    """What the loss needs of one batch: features of the three scales, each a list of ``(B, C_k, H_k, W_k)``."""

    teacher: list[torch.Tensor]
    student: list[torch.Tensor]
    noisy_teacher: list[torch.Tensor] | None
    scale_weights: torch.Tensor | None


class ScaleAdaptation(nn.Module):
    """One weight per image and scale: global max pooling, a linear layer and a softmax (SCRD, scale adaptation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, SCALES)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Weights ``(B, 3)`` from ``(B, C, H, W)``, float32 and of mean 1, so that equal weights change nothing."""
        logits = self.linear(embedding.amax(dim=(-2, -1)))
        weights: torch.Tensor = SCALES * logits.float().softmax(dim=1)
        return weights


class ScrdModel(nn.Module):
    """Teacher, one-class bottleneck, decoder and scale adaptation; arguments as those of `Scrd`."""

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        weighting: str = "scale_aware",
        map_score: MapScore | None = None,
        layers: Sequence[int] | None = None,
        image_size: tuple[int, int] = (256, 256),
    ) -> None:
        super().__init__()
        self.teacher = Teacher(backbone, layers, SCALES, image_size)
        self.bottleneck, channels = build_bottleneck(self.teacher)
        self.decoder = build_decoder(self.teacher, channels, 2 * self.teacher.reductions[-1])
        self.scale_adaptation = ScaleAdaptation(channels) if weighting == "scale_aware" else None
        self.blur = GaussianBlur(sigma=4.0)
        self.map_score = MapScore() if map_score is None else map_score

    def forward(self, images: torch.Tensor, noisy_images: torch.Tensor | None = None) -> ScrdFeatures | InferenceBatch:
        """Features in training mode; in evaluation mode anomaly maps ``(B, 1, H, W)`` and scores ``(B,)``, float32.

        Images are normalised, ``(B, 3, H, W)``; the noisy ones, in training with contrast, are the same with anomalies,
        and seen by the teacher alone. (For the local contrast the two change places.)
        """
        features = self._features(images, noisy_images)
        if self.training:
            return features
        maps = cosine_distance_maps(features.teacher, features.student, size=(images.shape[-2], images.shape[-1]))
        if features.scale_weights is not None:
            maps = maps * features.scale_weights[:, :, None, None]
        scored: InferenceBatch = self.map_score(self.blur(maps.sum(dim=1, keepdim=True)))
        return scored

    def scale_weights(self, images: torch.Tensor) -> torch.Tensor | None:
        """Weights of the scales for normalised images ``(B, 3, H, W)``: ``(B, 3)``, or None without weighting."""
        if self.scale_adaptation is None:
            return None
        weights: torch.Tensor = self.scale_adaptation(self.bottleneck(self.teacher(images)))
        return weights

    def _features(self, images: torch.Tensor, noisy_images: torch.Tensor | None) -> ScrdFeatures:
        count = images.shape[0]  # len() would fix the batch size of an exported graph
        # One pass of the teacher over both; the student sees the first ones only.
        both = self.teacher(images if noisy_images is None else torch.cat([images, noisy_images]))
        teacher = [features[:count] for features in both]
        embedding = self.bottleneck(teacher)
        return ScrdFeatures(
            teacher=teacher,
            student=self.decoder(embedding),
            noisy_teacher=None if noisy_images is None else [features[count:] for features in both],
            scale_weights=None if self.scale_adaptation is None else self.scale_adaptation(embedding),
        )
