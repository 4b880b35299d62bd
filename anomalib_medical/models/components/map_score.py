"""From anomaly maps to image scores: standardised by normal images' maps or not, and reduced in one of several ways."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_medical.errors import MedicalError
from anomalib_medical.metrics import compare_auroc

from .anomaly_map import GaussianBlur
from .arguments import check_choice
from .foreign_patches import add_foreign_patches
from .noise import add_noise_patches
from .numerics import derived_seed, in_float32

Reduction = Literal["mean", "max", "top_k"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "max", "top_k")
NORMALIZATIONS = ("none", "pixel")
#: Share of the map's pixels that ``top_k`` takes the mean of.
TOP_SHARE = 0.01
#: So many held-out normal images are needed where something is fitted to them.
FEWEST_NORMALS = 20
#: So many of them at most are scored to choose a reduction, each once as it is and once with each kind of anomaly.
MOST_NORMALS = 64
_PATCH_SIZE = (0.1, 0.4)  # sides of noisy patches, of the image's; those of the others are as large
_NOISE_STRENGTH = 0.2  # for images in [0, 1], as SCRD's
_BLUR = 1 / 32  # standard deviation, of the image's longer side
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


def check_score(score_reduction: str, map_normalization: str, top_share: float) -> None:
    """Refuse what `MapScore` does not know."""
    check_choice("score_reduction", score_reduction, (*REDUCTIONS, "auto"))
    check_choice("map_normalization", map_normalization, NORMALIZATIONS)
    if not 0 < top_share <= 1:
        msg = f"top_share: got {top_share}, expected a share of the map's pixels, above 0 and at most 1."
        raise ValueError(msg)


def too_few_normals(count: int, argument: str) -> MedicalError:
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


def synthetic_anomalies(images: torch.Tensor, input_scale: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    """Prepared images ``(B, C, H, W)`` with a patch of noise, of another image, and of themselves blurred.

    Patches have sides of 10 to 40 percent of the image's. ``input_scale`` is what 1 in the image is to the network.
    """
    drawn = torch.Generator(device=images.device).manual_seed(derived_seed(seed, 0))
    yield add_noise_patches(images, drawn, strength=_NOISE_STRENGTH * input_scale, patch_size=_PATCH_SIZE)
    blur = GaussianBlur(_BLUR * max(images.shape[-2:])).to(images.device)
    blurred = blur(images.flatten(0, 1)[:, None]).reshape(images.shape)
    for part, others in enumerate((images.roll(1, dims=0), blurred), start=1):
        generator = torch.Generator(device=images.device).manual_seed(derived_seed(seed, part))
        yield add_foreign_patches(images, others, generator, probability=1)[0]


class Choice(NamedTuple):
    """A reduction, and the AUROC of each between normal images and synthetic anomalies of them."""

    reduction: Reduction
    auroc: dict[Reduction, float]
    normals: int
    anomalies: int

    def __str__(self) -> str:
        """One line for the log."""
        found = ", ".join(f"{name} {value:.3f}" for name, value in self.auroc.items())
        return (
            f"score_reduction: auto took {self.reduction} (AUROC between {self.normals} held-out normal images and "
            f"{self.anomalies} synthetic anomalies of them: {found})"
        )


def choose_reduction(scores: Mapping[Reduction, Sequence[torch.Tensor]], default: Reduction) -> Choice:
    """Take the reduction whose scores tell best, or the default if none is clearly better.

    Args:
        scores: Of each reduction those of N normal images ``(N,)``, then those of anomalies made of the same images in
            the same order, ``(N,)`` for each kind. What is not finite is left out, for all reductions.
        default: What is taken unless the 95% interval of the difference (DeLong's, clustered by image) excludes zero.
    """
    values = {name: torch.stack(list(parts)).float().cpu().numpy() for name, parts in scores.items()}
    finite = np.isfinite(list(values.values())).all(axis=(0, 1))
    values = {name: value[:, finite] for name, value in values.items()}
    kinds, normals = values[default].shape
    labels = np.repeat([0] + [1] * (kinds - 1), normals)
    images = [str(index) for index in range(normals)] * kinds
    found = {
        name: compare_auroc(value.ravel(), values[default].ravel(), labels, images) for name, value in values.items()
    }
    best = max(found, key=lambda name: found[name].first)
    auroc = {name: each.first for name, each in found.items()}
    return Choice(best if found[best].low > 0 else default, auroc, normals, normals * (kinds - 1))


class MapScore(nn.Module):
    """From an anomaly map to a score, the last step of every network, part of graphs and checkpoints.

    Args:
        score_reduction: ``mean``, ``max`` or ``top_k`` (mean of the highest pixels), or ``auto`` for the one that
            :meth:`choose` takes.
        map_normalization: ``pixel`` subtracts at each pixel the mean of normal images' maps and divides by their
            standard deviation, once :meth:`fit` has given them; ``none`` leaves the map as it is.
        top_share: Share of the map's pixels that ``top_k`` takes.
        default: What ``auto`` is before anything was chosen, and where nothing is clearly better.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        score_reduction: Reduction | Literal["auto"] = "mean",
        map_normalization: str = "none",
        top_share: float = TOP_SHARE,
        default: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.chooses = score_reduction == "auto"
        self.default: Reduction = default
        # A plain value: a graph does not branch on a tensor.
        self.reduction: Reduction = default if score_reduction == "auto" else score_reduction
        self.choice: Choice | None = None
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
            raise too_few_normals(count, "map_normalization: pixel")
        normals = reduce(NormalMaps.merge, parts)
        self.mean, self.deviation, self.normals = normals.mean, normals.deviation, normals

    def choose(self, normal: torch.Tensor, anomalous: Iterable[torch.Tensor]) -> None:
        """Choose between the reductions by maps that :meth:`forward` gave, all ``(N, 1, H, W)``.

        Args:
            normal: Those of N normal images.
            anomalous: For each kind of anomaly, those of the same images with one.
        """
        scores: dict[Reduction, list[torch.Tensor]] = {name: [] for name in REDUCTIONS}
        for maps in (normal, *anomalous):
            if self.normals is not None:
                maps = self.normals.standardize(self._plain(maps), self._plain(normal))  # noqa: PLW2901 - the same, fairly
            for name, values in scores.items():
                values.append(reduce_map(maps, name, self.top_share))
        self.choice = choose_reduction(scores, self.default)
        self.reduction = self.choice.reduction

    def describe(self) -> str:
        """Say in a few words what a score is."""
        standardised = ", standardised by held-out normal images" if self.is_fitted else ""
        chosen = f" (of {', '.join(REDUCTIONS)} the best on synthetic anomalies)" if self.chooses else ""
        return f"{self.reduction} of the map{standardised}{chosen}"

    def reduce(self, maps: torch.Tensor) -> torch.Tensor:
        """Scores ``(B,)`` of maps ``(B, 1, H, W)`` as they are."""
        return reduce_map(maps, self.reduction, self.top_share)

    def _plain(self, maps: torch.Tensor) -> torch.Tensor:
        """What :meth:`forward` made these of."""
        return maps * self.deviation + self.mean if self.is_fitted else maps

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
        plain = self._plain(maps)
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
