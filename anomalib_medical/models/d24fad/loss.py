"""The dual distillation loss of D2-4FAD."""

import torch
from torch import nn


class D24fadLoss(nn.Module):
    """Student against the weighted support (SSD), and student against the teacher (TSD).

    Args:
        ssd_weight: Weight of the student self-distillation.
        tsd_weight: Weight of the teacher-student distillation.
    """

    def __init__(self, ssd_weight: float = 1.0, tsd_weight: float = 0.1) -> None:
        super().__init__()
        self.ssd_weight = ssd_weight
        self.tsd_weight = tsd_weight

    def forward(self, ssd: torch.Tensor, tsd: torch.Tensor) -> torch.Tensor:
        """Sum over the scales and average over the images ``1 - cos`` of each to its target, both ``(B, S)``."""
        return self.ssd_weight * ssd.sum(dim=1).mean() + self.tsd_weight * tsd.sum(dim=1).mean()
