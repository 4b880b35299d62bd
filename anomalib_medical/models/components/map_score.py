"""From anomaly maps to image scores: standardised by normal images' maps or not, and reduced in one of several ways."""

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_medical.errors import MedicalError

from .arguments import check_choice
from .numerics import in_float32

Reduction = Literal["mean", "max", "top_k"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "max", "top_k")
NORMALIZATIONS = ("none", "pixel")
#: Share of the map's pixels that ``top_k`` takes the mean of.
TOP_SHARE = 0.01
#: So many held-out normal images are needed where something is fitted to them.
FEWEST_NORMALS = 20
# Pixels that hardly vary among normals, such as those of a black background, would drown all others: their deviation
# counts as this share of the map's (root mean square).
_FLOOR = 0.3


def reduce_map(anomaly_map: torch.Tensor, reduction: Reduction, top_share: float = TOP_SHARE) -> torch.Tensor:
    """Image scores ``(B,)`` from maps ``(B, 1, H, W)``: ``mean``, ``max``, or mean of the highest share (``top_k``)."""
    if reduction == "mean":
        return anomaly_map.mean(dim=(1, 2, 3))
    if reduction == "max":
        return anomaly_map.amax(dim=(1, 2, 3))
    pixels = anomaly_map.flatten(1)
    return pixels.topk(max(1, math.ceil(top_share * pixels.shape[1])), dim=1, sorted=False).values.mean(dim=1)


def check_score(
    score_reduction: str, map_normalization: str, top_share: float, reductions: tuple[str, ...] = REDUCTIONS
) -> None:
    """Refuse what `MapScore` does not know."""
    check_choice("score_reduction", score_reduction, reductions)
    check_choice("map_normalization", map_normalization, NORMALIZATIONS)
    if not 0 < top_share <= 1:
        msg = f"top_share: got {top_share}, expected a share of the map's pixels, above 0 and at most 1."
        raise ValueError(msg)


def too_few_normals(argument: str, count: int) -> MedicalError:
    """Say how many held-out normal images there are, and what works without."""
    way_out = "map_normalization none" if "normalization" in argument else f"score_reduction {', '.join(REDUCTIONS)}"
    return MedicalError(
        f"{argument} is fitted to held-out normal images: got {count}, expected at least {FEWEST_NORMALS}. Hold out "
        f"more (--data.val_split_ratio), or choose yourself: --model.{way_out}."
    )


class NormalMaps(NamedTuple):
    """What is known of the maps of N normal images at each pixel, ``(1, 1, H, W)``, float32."""

    number: int
    mean: torch.Tensor
    variance: torch.Tensor  # the unbiased one

    @classmethod
    def of(cls, maps: torch.Tensor) -> "NormalMaps":
        """Those of maps ``(N, 1, H, W)``."""
        variance, mean = torch.var_mean(maps.float(), dim=0, keepdim=True, correction=min(1, len(maps) - 1))
        return cls(len(maps), mean, variance)

    def merge(self, other: "NormalMaps") -> "NormalMaps":
        """Those of both sets of images (Chan, Golub and LeVeque, 1979)."""
        count, step = self.number + other.number, other.mean - self.mean
        squares = (self.number - 1) * self.variance + (other.number - 1) * other.variance
        squares = squares + step**2 * (self.number * other.number / count)
        return NormalMaps(count, self.mean + step * (other.number / count), squares / (count - 1))

    @property
    def floor(self) -> torch.Tensor:
        """Smallest deviation that a pixel counts with, a scalar; above zero."""
        return (_FLOOR * self.variance.mean().sqrt()).clamp(min=torch.finfo(torch.float32).tiny)

    @property
    def deviation(self) -> torch.Tensor:
        """Standard deviation ``(1, 1, H, W)``, no smaller than the floor."""
        return self.variance.sqrt().maximum(self.floor)

    def standardize(self, maps: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Standardise maps ``(B, 1, H, W)`` of images among the N by the maps of the others, ``own`` being left out.

        With its own map among those that it is compared with, no pixel deviates by more than ``sqrt(N)``: a threshold
        from such scores would be too low for images that are new.
        """
        count, away = self.number, own - self.mean
        mean = self.mean - away / (count - 1)
        squares = (count - 1) * self.variance - away**2 * (count / (count - 1))
        return (maps - mean) / (squares.clamp(min=0) / (count - 2)).sqrt().maximum(self.floor)


class MapScore(nn.Module):
    """From an anomaly map to a score, the last step of every network, part of graphs and checkpoints.

    Args:
        score_reduction: ``mean``, ``max`` or ``top_k`` (mean of the highest pixels).
        map_normalization: ``pixel`` subtracts at each pixel the mean of normal images' maps and divides by their
            standard deviation, once :meth:`fit` has given them; ``none`` leaves the map as it is.
        top_share: Share of the map's pixels that ``top_k`` takes.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, score_reduction: Reduction = "mean", map_normalization: str = "none", top_share: float = TOP_SHARE
    ) -> None:
        super().__init__()
        # A plain value: a graph does not branch on a tensor.
        self.reduction: Reduction = score_reduction
        self.top_share = top_share
        self.normalizes = map_normalization == "pixel"
        # Only while the images that they are of are scored.
        self.normals: NormalMaps | None = None
        if self.normalizes:
            self.register_buffer("mean", torch.empty(0))
            self.register_buffer("deviation", torch.empty(0))

    @property
    def is_fitted(self) -> bool:
        """Whether maps are standardised."""
        return self.normalizes and self.mean.numel() > 0

    def reset(self) -> None:
        """Forget the normal images' maps: maps stay as they are."""
        self.normals = None
        if self.normalizes:
            self.mean = self.deviation = self.mean.new_empty(0)

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Standardise from now on by the maps of normal images, batches of ``(B, 1, H, W)`` as they are.

        Raises:
            MedicalError: If they are too few.
        """
        parts = [NormalMaps.of(batch) for batch in batches]
        count = sum(part.number for part in parts)
        if count < FEWEST_NORMALS:
            argument = "map_normalization: pixel"
            raise too_few_normals(argument, count)
        normals = reduce(NormalMaps.merge, parts)
        self.mean, self.deviation, self.normals = normals.mean, normals.deviation, normals

    def reduce(self, maps: torch.Tensor) -> torch.Tensor:
        """Scores ``(B,)`` of maps ``(B, 1, H, W)`` as they are."""
        return reduce_map(maps, self.reduction, self.top_share)

    @in_float32
    def forward(self, maps: torch.Tensor) -> InferenceBatch:
        """Score maps ``(B, 1, H, W)``; returns them, standardised if wanted, with their scores ``(B,)``."""
        if self.is_fitted:
            if not torch.compiler.is_exporting() and maps.shape[-2:] != self.mean.shape[-2:]:
                here, there = (f"{size[-2]}x{size[-1]}" for size in (maps.shape, self.mean.shape))
                msg = (
                    f"The maps are of {here} pixels (height x width), and those of the normal images that map_"
                    f"normalization: pixel compares them with of {there}: let the pre-processor resize to one size."
                )
                raise MedicalError(msg)
            maps = (maps - self.mean) / self.deviation
        return InferenceBatch(pred_score=self.reduce(maps), anomaly_map=maps)

    def leave_out(self, scored: InferenceBatch, normal: torch.Tensor) -> InferenceBatch:
        """Score images ``(B,)`` that are among the normal ones as if they were not; others as they were."""
        if self.normals is None:
            return scored
        maps: torch.Tensor = scored.anomaly_map  # type: ignore[assignment]  # its own forward gave them
        plain = maps * self.deviation + self.mean
        maps = torch.where(normal.view(-1, 1, 1, 1), self.normals.standardize(plain, plain), maps)
        return InferenceBatch(pred_score=self.reduce(maps), anomaly_map=maps)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's hook
        self.fit_to(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def fit_to(self, state_dict: dict[str, torch.Tensor], prefix: str) -> None:
        """Make room for the maps that a state dict has under a prefix, of whatever size."""
        self.normals = None
        for name, own in list(self.named_buffers()):
            given = state_dict.get(prefix + name)
            if given is not None and given.shape != own.shape:
                setattr(self, name, own.new_empty(given.shape))
