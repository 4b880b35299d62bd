"""The contrastive ratio loss of SCRD."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

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

    def forward(
        self,
        clean: torch.Tensor,
        noisy: torch.Tensor | None,
        weights: torch.Tensor | None,
        whole: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of distances and weights of the scales ``(B, S)``; without ``noisy`` the numerator, without contrast.

        ``whole`` ``(B, S)``, where the others are distances of a part of the image, is added without contrast.
        """
        equal = torch.ones_like(clean) if weights is None else weights
        loss = (equal * clean).sum(dim=1).mean()
        if noisy is not None:
            loss = loss / ((equal * noisy).sum(dim=1).mean() + _EPSILON)
        if whole is not None:
            loss = loss + (equal * whole).sum(dim=1).mean()
        if weights is not None:
            loss = loss - self.balance * weights.clamp(min=_EPSILON).log().mean()
        return loss


def changed_distances(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], changed: torch.Tensor
) -> torch.Tensor:
    """Mean cosine distance ``(B, S)``, float32, over an image's changed positions at every scale; 0 if it has none.

    Features are ``(B, C_s, H_s, W_s)``. A position is changed if any of its pixels is, by the mask ``(B, 1, H, W)``.
    """
    means = []
    for a, b in zip(first, second, strict=True):
        mask = F.adaptive_max_pool2d(changed.float(), a.shape[-2:])[:, 0]
        distances = 1 - F.cosine_similarity(a.float(), b.float())
        means.append((mask * distances).sum(dim=(-2, -1)) / mask.sum(dim=(-2, -1)).clamp(min=1))
    return torch.stack(means, dim=1)
