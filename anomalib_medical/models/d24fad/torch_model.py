"""The network of D2-4FAD."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical.models.components import GaussianBlur, MapScore, Teacher, cosine_distance_maps, in_float32
from anomalib_medical.models.components.student import build_decoder

SCALES = 3
_ENCODED_AT_ONCE = 16


class EncodedSupport(NamedTuple):
    """Support of one scale: features and keys, both ``(K, C, H, W)``, float32."""

    features: torch.Tensor
    keys: torch.Tensor


class EpisodeFeatures(NamedTuple):
    """What loss and scores need of a batch of queries: each a list of three ``(B, C_k, H_k, W_k)``."""

    teacher: list[torch.Tensor]
    student: list[torch.Tensor]
    support: list[torch.Tensor]


class SupportAttention(nn.Module):
    """Weighted mean of the support's features at one scale, another one for every query (D2-4FAD, learn-to-weight).

    ``weights_k = softmax_k(<key_k, query> / sqrt(C))`` over all positions and channels, with keys from a 1x1
    convolution of the support. The convolution has no bias: it would add the same to every logit of a query, which a
    softmax does not see. All in float32, whatever the autocast.

    Args:
        channels: Channels of the features.
        learned: False for equal weights.
    """

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, kernel_size=1, bias=False) if learned else None

    @in_float32
    def keys(self, support: torch.Tensor) -> torch.Tensor:
        """Keys of support features ``(K, C, H, W)``, of the same shape."""
        return support if self.project is None else self.project(support)

    @in_float32
    def forward(
        self, query: torch.Tensor, support: torch.Tensor, keys: torch.Tensor, member: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weigh support features ``(K, C, H, W)``, with their :meth:`keys`, for each query ``(B, C, H, W)``.

        ``member`` ``(B, K)``, bool, says which images are in the support of which query; None for all in all.
        """
        mean = self.weights(query, keys, member) @ support.flatten(1)
        return mean.reshape(-1, *support.shape[1:])

    @in_float32
    def weights(self, query: torch.Tensor, keys: torch.Tensor, member: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``(B, K)``, which adds up to one for every query; arguments as in :meth:`forward`."""
        # What all keys have in common cancels in the softmax, but not in the rounding of its large logits.
        differences = keys - keys.mean(dim=0, keepdim=True)
        logits = query.flatten(1) @ differences.flatten(1).transpose(0, 1) * query.shape[1] ** -0.5
        if self.project is None:
            logits = torch.zeros_like(logits)
        if member is not None:
            logits = logits.masked_fill(~member, float("-inf"))
        weights: torch.Tensor = logits.softmax(dim=1)
        return weights


class SupportSet(nn.Module):
    """The encoded support in buffers: part of checkpoints and of exported graphs, for any number of images."""

    def __init__(self) -> None:
        super().__init__()
        for scale in range(SCALES):
            for part in EncodedSupport._fields:
                self.register_buffer(f"{part}_{scale}", torch.empty(0, 0, 0, 0))

    def __len__(self) -> int:
        """Count the support images."""
        return int(self.get_buffer("features_0").shape[0])

    def __iter__(self) -> Iterator[EncodedSupport]:
        """Go through the scales, fine to coarse."""
        for scale in range(SCALES):
            yield EncodedSupport(*(self.get_buffer(f"{part}_{scale}") for part in EncodedSupport._fields))

    def fill(self, encoded: Sequence[EncodedSupport]) -> bool:
        """Replace the support, one part a scale; return whether it is another one, but for rounding."""
        same = all(
            old.features.shape == new.features.shape
            and bool((F.cosine_similarity(old.features.flatten(1), new.features.flatten(1)) > 1 - 1e-4).all())
            for old, new in zip(self, encoded, strict=True)
        )
        for scale, one in enumerate(encoded):
            for part in EncodedSupport._fields:
                setattr(self, f"{part}_{scale}", getattr(one, part).detach().clone())
        return not same

    def fit_to(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Make room for the support that a state dict has under a prefix, of however many images."""
        for name, own in list(self.named_buffers()):
            given = state_dict.get(prefix + name)
            if given is not None and given.shape != own.shape:
                setattr(self, name, own.new_empty(given.shape))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's hook
        self.fit_to(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class D24fadModel(nn.Module):
    """Teacher, student, learn-to-weight, and the encoded support.

    Args:
        backbone: timm name of the teacher.
        weighting: ``learned`` for learn-to-weight, ``none`` for the plain mean of the support.
        map_score: What makes a score of a map; None for the maximum.
        layers: Four of the teacher's stages, see `Teacher`.
        image_size: Height and width of the images.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        weighting: str = "learned",
        map_score: MapScore | None = None,
        layers: Sequence[int] | None = None,
        image_size: tuple[int, int] = (128, 128),
    ) -> None:
        super().__init__()
        self.teacher = Teacher(backbone, layers, SCALES + 1, image_size)
        self.decoder = build_decoder(self.teacher, self.teacher.channels[-1], self.teacher.reductions[-1])
        channels = self.teacher.channels[:SCALES]
        self.attention = nn.ModuleList(SupportAttention(count, learned=weighting == "learned") for count in channels)
        self.first_reduction = self.teacher.reductions[0]
        self.support = SupportSet()
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
        expected = tuple(self.first_reduction * side for side in support[0].features.shape[-2:])
        if (images.shape[-2], images.shape[-1]) != expected:
            msg = (
                f"Got images of {images.shape[-2]}x{images.shape[-1]} pixels (height x width), and a support of "
                f"{expected[0]}x{expected[1]}: both must be resized alike, as the model's own pre-processor does."
            )
            raise ValueError(msg)
        _, student = self.encode(images)
        return self.compare(student, self.weigh(student, support))

    def encode(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Teacher's and student's features of normalised images ``(B, 3, H, W)``.

        Each a list of three ``(B, C_k, H / r_k, W / r_k)``, with r_k the strides of the teacher's stages: 4, 8, 16.
        """
        *teacher, last = self.teacher(images)
        return teacher, list(self.decoder(last))

    def encode_support(self, images: torch.Tensor) -> list[EncodedSupport]:
        """Encode support images ``(K, 3, H, W)``, a few at a time, in evaluation mode and without gradient."""
        training = self.training
        self.eval()
        with torch.no_grad():
            parts = [self.encode(part)[1] for part in torch.split(images, _ENCODED_AT_ONCE)]
            features = [torch.cat(scale).float() for scale in zip(*parts, strict=True)]
            encoded = self.with_keys(features)
        self.train(training)
        return encoded

    def with_keys(self, student: Sequence[torch.Tensor]) -> list[EncodedSupport]:
        """Add the keys to the student's features of support images, each ``(K, C_k, H_k, W_k)``."""
        return [
            EncodedSupport(features, attention.keys(features))  # type: ignore[operator]  # a module list is untyped
            for attention, features in zip(self.attention, student, strict=True)
        ]

    def episode(
        self, images: torch.Tensor, support: torch.Tensor, member: torch.Tensor, *, stop_gradient: bool = False
    ) -> EpisodeFeatures:
        """Features of queries ``(B, 3, H, W)`` and of all their support images ``(K, 3, H, W)``, each encoded once.

        ``member`` ``(B, K)``, bool, says which of these are in whose support. With ``stop_gradient`` their features are
        constants; learn-to-weight still learns.
        """
        count = images.shape[0]
        teacher, student = self.encode(torch.cat([images, support]))
        others = [features[count:].detach() if stop_gradient else features[count:] for features in student]
        encoded = self.with_keys(others)
        queries = [features[:count] for features in student]
        return EpisodeFeatures([each[:count] for each in teacher], queries, self.weigh(queries, encoded, member))

    def weigh(
        self, student: Sequence[torch.Tensor], support: Sequence[EncodedSupport], member: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Weigh the support for each query, at every scale; see :class:`SupportAttention`."""
        return [
            attention(features, one.features, one.keys, member)
            for attention, features, one in zip(self.attention, student, support, strict=True)
        ]

    def compare(self, student: Sequence[torch.Tensor], support: Sequence[torch.Tensor]) -> InferenceBatch:
        """Maps as they are, and their scores, from the student's features of queries and their weighted supports."""
        size = (self.first_reduction * student[0].shape[-2], self.first_reduction * student[0].shape[-1])
        maps = cosine_distance_maps(student, support, size)
        anomaly_map = self.blur(maps.sum(dim=1, keepdim=True))
        return InferenceBatch(pred_score=self.map_score.reduce(anomaly_map), anomaly_map=anomaly_map)

    def leave_one_out(self, absent: int | None = None) -> InferenceBatch:
        """Score each of the K support images against the others, but for an absent one that none is compared with."""
        support = list(self.support)
        student = [one.features for one in support]
        member = ~torch.eye(len(self.support), dtype=torch.bool, device=student[0].device)
        if absent is not None:
            member[:, absent] = False
        with torch.no_grad():
            return self.compare(student, self.weigh(student, support, member))


def unique_support(support: torch.Tensor, index: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring the supports of a batch ``(B, K, 3, H, W)`` together, so that an image in several is encoded once.

    ``index`` ``(B, K)`` is equal for equal images; None if all are different. Returns the different images
    ``(U, 3, H, W)``, and which of them are in the support of which query ``(B, U)``, bool.
    """
    count, shots = support.shape[:2]
    positions = torch.arange(count * shots, device=support.device)
    index = positions.view(count, shots) if index is None else index
    images, inverse = torch.unique(index, return_inverse=True)
    first = torch.full_like(images, count * shots).scatter_reduce_(0, inverse.flatten(), positions, "amin")
    member = torch.zeros(count, images.shape[0], dtype=torch.bool, device=support.device)
    return support.flatten(0, 1)[first], member.scatter_(1, inverse, value=True)
