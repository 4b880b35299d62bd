"""The contrastive ratio loss of SCRD."""

import torch
from torch import nn


class ScrdLoss(nn.Module):
    """Pull the student to the clean teacher, push it from the noisy one.

    With d and n the distances of the student to the clean and to the noisy teacher, and w the weights of the scales
    (mean 1 over the scales of an image)::

        mean_b(sum_k w d) / mean_b(sum_k w n) - balance * mean(log w)

    The ratio is SCRD's, with the weights outside the cosine, where they act: with equal weights it is what the
    released code computes. It falls when all weight lies on the scale with the smallest d / n, so that a softmax
    ends up on one scale within a few hundred steps; the second term, zero for equal weights, keeps it from that.

    Args:
        balance: Strength of the second term.
        epsilon: Keeps the ratio finite where the student equals the noisy teacher.
    """

    def __init__(self, balance: float = 0.1, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.balance = balance
        self.epsilon = epsilon

    def forward(
        self,
        clean: torch.Tensor,
        noisy: torch.Tensor | None,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            clean: Distances to the clean teacher ``(B, S)``.
            noisy: Distances to the noisy teacher ``(B, S)``, or None without contrast, for the numerator alone.
            weights: Weights of the scales ``(B, S)``, or None for equal ones.

        Returns:
            Scalar.
        """
        equal = torch.ones_like(clean) if weights is None else weights
        loss = (equal * clean).sum(dim=1).mean()
        if noisy is not None:
            loss = loss / ((equal * noisy).sum(dim=1).mean() + self.epsilon)
        if weights is not None:
            loss = loss - self.balance * weights.clamp(min=self.epsilon).log().mean()
        return loss
