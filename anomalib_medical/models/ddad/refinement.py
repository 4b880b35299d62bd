"""Anomaly score refinement (DDAD-ASR): a small network that learns on synthetic anomalies what the maps mean."""

import torch
from torch import nn

_HIDDEN = 128
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


def focal_loss(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean focal loss of probabilities ``(B, 2, H, W)`` (normal, abnormal): gamma 2, targets smoothed by 1e-5."""
    abnormal = torch.where(masks, 1 - _SMOOTHING, _SMOOTHING)
    right = probabilities[:, 1:] * abnormal + probabilities[:, :1] * (1 - abnormal) + _SMOOTHING
    # A probability of one would come out above it.
    return ((1 - right).clamp(min=0) ** _GAMMA * -torch.log(right)).mean()
