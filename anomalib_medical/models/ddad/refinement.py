"""Anomaly score refinement (DDAD-ASR): a small network that learns on synthetic anomalies what the maps mean."""

import torch
from torch import nn

_HIDDEN = 128
_CENTRE = 0.8  # share of the image, in its middle, where patches are centred
_HALF_WIDTH = (0.05, 0.2)  # of the image's width
_GAMMA = 2.0
_SMOOTHING = 1e-5


class RefinementNet(nn.Module):
    """Three 3x3 convolutions from so many discrepancy maps to the probability of an anomaly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, _HIDDEN, 3, padding=1),
            nn.BatchNorm2d(_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv2d(_HIDDEN, _HIDDEN, 3, padding=1),
            nn.BatchNorm2d(_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv2d(_HIDDEN, 2, 3, padding=1),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Turn maps ``(B, channels, H, W)`` into probabilities ``(B, 2, H, W)``: normal, abnormal."""
        probabilities: torch.Tensor = self.layers(maps).float().softmax(dim=1)
        return probabilities


def add_foreign_patches(
    images: torch.Tensor, foreign: torch.Tensor, generator: torch.Generator, probability: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend a square of another image into images ``(B, 1, H, W)``, as in foreign patch interpolation.

    The square's centre lies in the central 80 percent of the image, its half-width is 5 to 20 percent of the width, and
    it is cut at the border; the blend factor is uniform in [0, 1]. The generator is on the CPU. Returns the images and,
    of the same shape, where they have a patch (bool).
    """
    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> torch.Tensor:
        drawn = low + (high - low) * torch.rand(count, generator=generator)
        return drawn.to(images.device)[:, None, None, None]

    margin = (1 - _CENTRE) / 2
    chosen = uniform(0, 1) < probability
    centre_y, centre_x = uniform(margin, 1 - margin) * height, uniform(margin, 1 - margin) * width
    half = uniform(*_HALF_WIDTH) * width
    factor = uniform(0, 1)
    rows = torch.arange(height, device=images.device)[None, None, :, None] + 0.5
    columns = torch.arange(width, device=images.device)[None, None, None, :] + 0.5
    masks = chosen & ((rows - centre_y).abs() <= half) & ((columns - centre_x).abs() <= half)
    return torch.where(masks, torch.lerp(images, foreign, factor), images), masks


def focal_loss(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean focal loss of probabilities ``(B, 2, H, W)`` (normal, abnormal): gamma 2, targets smoothed by 1e-5."""
    abnormal = torch.where(masks, 1 - _SMOOTHING, _SMOOTHING)
    right = probabilities[:, 1:] * abnormal + probabilities[:, :1] * (1 - abnormal) + _SMOOTHING
    # A probability of one would come out above it.
    return ((1 - right).clamp(min=0) ** _GAMMA * -torch.log(right)).mean()
