"""Distances between feature pyramids, for losses."""

from collections.abc import Sequence

import torch
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
