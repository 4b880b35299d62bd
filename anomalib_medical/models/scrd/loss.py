"""The contrastive ratio loss of SCRD."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by


def feature_distances(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
    """``1 - cos`` of the flattened features of each image and scale.

    Args:
        first: Features of S scales, each ``(B, C_s, H_s, W_s)``.
        second: Features of the same shapes.

    Returns:
        ``(B, S)``, float32 whatever the features are: sums over 10**5 products overflow in half precision.
    """
    distances = [
        1 - F.cosine_similarity(a.float().flatten(1), b.float().flatten(1)) for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(distances, dim=1)


class ScrdLoss(nn.Module):
    """Pull the student to the clean teacher, push it from the noisy one.

    Args:
        form: EXPERIMENT.
        balance: EXPERIMENT.
        epsilon: Keeps the ratio finite where the student equals the noisy teacher.
    """

    def __init__(self, form: str = "sum_batch", balance: float = 0.0, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.form = form
        self.balance = balance
        self.epsilon = epsilon

    def forward(
        self,
        clean: torch.Tensor,
        noisy: torch.Tensor | None,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        w = torch.ones_like(clean) if weights is None else weights
        if noisy is None:
            value = (w * clean).sum(1).mean()
        elif self.form == "sum_batch":
            value = (w * clean).sum(1).mean() / ((w * noisy).sum(1).mean() + self.epsilon)
        elif self.form == "sum_image":
            value = ((w * clean).sum(1) / ((w * noisy).sum(1) + self.epsilon)).mean()
        elif self.form == "scale_batch":
            value = ((w * clean).mean(0) / ((w * noisy).mean(0) + self.epsilon)).mean()
        elif self.form == "scale_outer":
            value = (w * (clean.mean(0) / (noisy.mean(0) + self.epsilon))).mean()
        else:
            value = (w * (clean / (noisy + self.epsilon))).mean()
        if weights is not None and self.balance:
            value = value - self.balance * weights.clamp(min=1e-6).log().mean()
        return value
