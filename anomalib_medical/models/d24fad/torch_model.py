"""The network of D2-4FAD."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical.models.components import (
    GaussianBlur,
    MapScore,
    Teacher,
    cosine_distance_maps,
    feature_distances,
)
from anomalib_medical.models.components.student import build_decoder

from .matching import EncodedSupport, SupportAttention, SupportSet, joined, nearest_distances
from .pairs import Pairs

SCALES = 3
_ENCODED_AT_ONCE = 16
Matching = Literal["aligned", "nearest"]
Features = Literal["student", "teacher", "both"]


class EpisodeFeatures(NamedTuple):
    """What loss and scores need of a batch of B queries and its support of K images."""

    teacher: list[torch.Tensor]  # (B, C_k, H_k, W_k), of the three scales
    student: list[torch.Tensor]
    levels: list[torch.Tensor]  # what is compared of them, see `D24fadModel.levels`
    support: list[EncodedSupport]  # of the levels
    pairs: Pairs  # which images are in whose support


class D24fadModel(nn.Module):
    """Teacher, student, learn-to-weight, and the encoded support.

    Args:
        backbone: timm name of the teacher.
        weighting: ``learned`` for learn-to-weight at the student's levels, ``none`` for the plain mean of the support,
            or, with ``nearest``, for the nearest of its images.
        map_score: What makes a score of a map; None for the maximum.
        layers: Four of the teacher's stages, see `Teacher`.
        image_size: Height and width of the images.
        matching: ``aligned`` compares features of the same position, ``nearest`` the most similar ones.
        window: How far away, as a share of height and width, ``nearest`` looks for them.
        features: Whose features are compared: ``student``, ``teacher`` (nothing is learned, there is no student), or
            ``both``.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        weighting: str = "learned",
        map_score: MapScore | None = None,
        layers: Sequence[int] | None = None,
        image_size: tuple[int, int] = (128, 128),
        matching: Matching = "aligned",
        window: float = 1.0,
        features: Features = "student",
    ) -> None:
        super().__init__()
        self.learns = features != "teacher"
        self.matching, self.window, self.features = matching, window, features
        self.teacher = Teacher(backbone, layers, SCALES + 1, image_size)
        channels, self.reduction = self.teacher.channels[:SCALES], self.teacher.reductions[0]
        if matching == "nearest":
            channels, self.reduction = [sum(channels)], self.teacher.reductions[1]
        self.decoder = None
        if self.learns:
            self.decoder = build_decoder(self.teacher, self.teacher.channels[-1], self.teacher.reductions[-1])
        #: How many of the levels are the student's.
        self.student_levels = len(channels) if self.learns else 0
        # Only the student learns, and with it how to weigh.
        weighed = [weighting == "learned"] * self.student_levels + [False] * len(channels) * (features != "student")
        self.attention = nn.ModuleList(
            SupportAttention(channels[level % len(channels)], learned) for level, learned in enumerate(weighed)
        )
        self.support = SupportSet(weighed)
        self.blur = GaussianBlur(sigma=4.0)
        self.map_score = MapScore("max") if map_score is None else map_score

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images against the support in the buffers.

        Args:
            images: Normalised images ``(B, 3, H, W)``, of the size that the support had.

        Returns:
            Anomaly maps ``(B, 1, H, W)`` and scores ``(B,)``, float32.

        Raises:
            ValueError: If there is no support, or it was of another size.
        """
        if len(self.support) == 0:
            msg = (
                "The model has no support set to compare with. Give a folder of a few normal images: "
                "--model.support_dir FOLDER, or model.set_support(images)."
            )
            raise ValueError(msg)
        scored: InferenceBatch = self.map_score(self.score(images, list(self.support)).anomaly_map)
        return scored

    def score(self, images: torch.Tensor, support: Sequence[EncodedSupport]) -> InferenceBatch:
        """Score images against what :meth:`encode_support` made of others of the same size.

        By maps as they are: those of normal images that :meth:`forward` may compare with belong to the own support.
        """
        expected = tuple(self.reduction * side for side in support[0].features.shape[-2:])
        if (images.shape[-2], images.shape[-1]) != expected:
            msg = (
                f"Got images of {images.shape[-2]}x{images.shape[-1]} pixels (height x width), and a support of "
                f"{expected[0]}x{expected[1]}: both must be resized alike, as the model's own pre-processor does."
            )
            raise ValueError(msg)
        return self.compare(self.levels(*self.encode(images)), support)

    def encode(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Teacher's and student's features of normalised images ``(B, 3, H, W)``.

        Each a list of three ``(B, C_k, H / r_k, W / r_k)``, with r_k the strides of the teacher's stages: 4, 8, 16. The
        student's is empty without one.
        """
        teacher = self.teacher(images)
        return teacher[:SCALES], [] if self.decoder is None else list(self.decoder(teacher[-1]))

    def levels(self, teacher: list[torch.Tensor], student: list[torch.Tensor]) -> list[torch.Tensor]:
        """What is compared of :meth:`encode`'s features: the student's scales, the teacher's, or those and these.

        ``nearest`` joins the scales of each, so that a position has one most similar position and not one a scale.
        """
        pyramids = [*([student] if student else []), *([teacher] if self.features != "student" else [])]
        if self.matching == "nearest":
            return [joined(scales) for scales in pyramids]
        return [features for scales in pyramids for features in scales]

    def encode_support(self, images: torch.Tensor) -> list[EncodedSupport]:
        """Encode support images ``(K, 3, H, W)``, a few at a time, in evaluation mode and without gradient."""
        training = self.training
        self.eval()
        with torch.no_grad():
            parts = [self.levels(*self.encode(part)) for part in torch.split(images, _ENCODED_AT_ONCE)]
            features = [torch.cat(scale).float() for scale in zip(*parts, strict=True)]
            encoded = self.with_keys(features)
        self.train(training)
        return encoded

    def with_keys(self, levels: Sequence[torch.Tensor]) -> list[EncodedSupport]:
        """Add the keys to the compared features of support images, each ``(K, C_k, H_k, W_k)``."""
        return [
            EncodedSupport(features, attention.keys(features))  # type: ignore[operator]  # a module list is untyped
            for attention, features in zip(self.attention, levels, strict=True)
        ]

    def episode(
        self, images: torch.Tensor, support: torch.Tensor | None, pairs: Pairs, *, stop_gradient: bool = False
    ) -> EpisodeFeatures:
        """Features of queries ``(B, 3, H, W)`` and of all their support images ``(K, 3, H, W)``, each encoded once.

        Without support images the queries are each other's. With ``stop_gradient`` the support's features are
        constants; learn-to-weight still learns.
        """
        count = images.shape[0]
        teacher, student = self.encode(images if support is None else torch.cat([images, support]))
        levels = self.levels(teacher, student)
        others = levels if support is None else [features[count:] for features in levels]
        encoded = self.with_keys([features.detach() for features in others] if stop_gradient else others)
        teacher, student, levels = ([features[:count] for features in each] for each in (teacher, student, levels))
        return EpisodeFeatures(teacher, student, levels, encoded, pairs)

    def self_distances(self, episode: EpisodeFeatures) -> torch.Tensor:
        """How unlike its support the student sees each query, ``(B, L)`` at its L levels: the self-distillation."""
        count = self.student_levels
        levels, support = episode.levels[:count], episode.support[:count]
        if self.matching == "aligned":
            return feature_distances(levels, self.weigh(levels, support, episode.pairs))
        maps = self.nearest(levels, support, episode.pairs)
        return torch.stack([each.mean(dim=(1, 2, 3)) for each in maps], dim=1)

    def weigh(
        self, levels: Sequence[torch.Tensor], support: Sequence[EncodedSupport], pairs: Pairs | None = None
    ) -> list[torch.Tensor]:
        """Weigh the support for each query, at every level; see :class:`SupportAttention`."""
        return [
            attention(features, one.features, one.keys, None if pairs is None else pairs.member)
            for attention, features, one in zip(self.attention, levels, support, strict=False)
        ]

    def nearest(
        self, levels: Sequence[torch.Tensor], support: Sequence[EncodedSupport], pairs: Pairs | None = None
    ) -> list[torch.Tensor]:
        """Distances to the nearest positions, ``(B, 1, H, W)`` at every level, see :func:`nearest_distances`.

        Their weighted mean over the support images; where these are not weighed, to the nearest of all of them.
        """
        if pairs is not None:
            # One by one, each with its own support alone: all with all would cost many times as much.
            each = [
                self.nearest(
                    [features[row : row + 1] for features in levels],
                    [EncodedSupport(*(part[own] for part in one)) for one in support],
                )
                for row, own in enumerate(torch.split(pairs.columns, list(pairs.counts)))
            ]
            return [torch.cat(level) for level in zip(*each, strict=True)]
        maps = []
        for attention, weighed, features, one in zip(
            self.attention, self.support.weighed, levels, support, strict=False
        ):
            distances = nearest_distances(features, one.features, self.window)
            if weighed:
                weights = attention.weights(features, one.keys)  # type: ignore[operator]  # a module list is untyped
                maps.append((weights[:, :, None, None] * distances).sum(dim=1, keepdim=True))
            else:
                maps.append(distances.amin(dim=1, keepdim=True))
        return maps

    def compare(
        self, levels: Sequence[torch.Tensor], support: Sequence[EncodedSupport], pairs: Pairs | None = None
    ) -> InferenceBatch:
        """Maps as they are, and scores, from the compared features of queries and their encoded support.

        The pairs say which images are in the support of which query; None for all in all.
        """
        size = (self.reduction * levels[0].shape[-2], self.reduction * levels[0].shape[-1])
        if self.matching == "aligned":
            return self.finish(cosine_distance_maps(levels, self.weigh(levels, support, pairs), size))
        maps = torch.cat(self.nearest(levels, support, pairs), dim=1)
        return self.finish(F.interpolate(maps, size, mode="bilinear", align_corners=True))

    def finish(self, maps: torch.Tensor) -> InferenceBatch:
        """Add the distances ``(B, L, H, W)`` of all levels, blur and score them."""
        anomaly_map = self.blur(maps.sum(dim=1, keepdim=True))
        return InferenceBatch(pred_score=self.map_score.reduce(anomaly_map), anomaly_map=anomaly_map)

    def leave_one_out(self, absent: int | None = None) -> InferenceBatch:
        """Score each of the K support images against the others, but for an absent one that none is compared with."""
        support = list(self.support)
        levels = [one.features for one in support]
        member = ~torch.eye(len(self.support), dtype=torch.bool)
        if absent is not None:
            member[:, absent] = False
        with torch.no_grad():
            return self.compare(levels, support, Pairs.of_members(member).to(levels[0].device))
