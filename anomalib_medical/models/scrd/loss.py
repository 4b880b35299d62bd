"""The contrastive ratio loss of SCRD."""

import torch
from torch import nn

_EPSILON = 1e-6  # keeps the ratio finite where the student equals the noisy teacher


class ScrdLoss(nn.Module):
    """Pull the student to the clean teacher, push it from the noisy one.

    With d and n the distances of the student to the clean and to the noisy teacher, and w the weights of the scales
    (mean 1 over the scales of an image)::

        mean_b(sum_k w d) / mean_b(sum_k w n) - balance * mean(log w)

    The ratio is SCRD's, with the weights outside the cosine, where they act: with equal weights it is what the
    released code computes. It falls when all weight lies on the scale with the smallest d / n, so that a softmax
    ends up on one scale within a few hundred steps; the second term, zero for equal weights, keeps it from that.
    """

    def __init__(self, balance: float = 0.1) -> None:
        super().__init__()
        self.balance = balance

    def forward(self, clean: torch.Tensor, noisy: torch.Tensor | None, weights: torch.Tensor | None) -> torch.Tensor:
        """Loss of distances and weights of the scales ``(B, S)``; without ``noisy`` the numerator, without contrast."""
        equal = torch.ones_like(clean) if weights is None else weights
        loss = (equal * clean).sum(dim=1).mean()
        if noisy is not None:
            loss = loss / ((equal * noisy).sum(dim=1).mean() + _EPSILON)
        if weights is not None:
            loss = loss - self.balance * weights.clamp(min=_EPSILON).log().mean()
        return loss
