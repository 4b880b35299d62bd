"""Distances between feature pyramids, as losses see them and as anomaly maps."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from .numerics import in_float32


def feature_distances(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
    """``1 - cos`` ``(B, S)`` of the flattened features of each image and scale, S times ``(B, C_s, H_s, W_s)``.

    In float32 whatever the features are: sums over 10**5 products overflow in half precision.
    """
    distances = [
        1 - F.cosine_similarity(a.float().flatten(1), b.float().flatten(1)) for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(distances, dim=1)


def cosine_distance_maps(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], size: tuple[int, int]
) -> torch.Tensor:
    """Cosine distances ``(B, S, H, W)``, float32, at every position of S scales ``(B, C_s, H_s, W_s)``.

    Up-sampled to a height and width with aligned corners, as in reverse distillation.
    """
    maps = [
        F.interpolate(1 - F.cosine_similarity(a.float(), b.float())[:, None], size, mode="bilinear", align_corners=True)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.cat(maps, dim=1)


class GaussianBlur(nn.Module):
    """Separable Gaussian blur of each image by itself, the edge pixel repeated (numpy's "symmetric" padding).

    Equal to ``scipy.ndimage.gaussian_filter`` of one image; works on maps smaller than its kernel, where anomalib's
    `GaussianBlur2d`, which pads by reflection, fails.

    Args:
        sigma: Standard deviation in pixels; the kernel ends at four of them.
    """

    kernel: torch.Tensor

    def __init__(self, sigma: float = 4.0) -> None:
        super().__init__()
        self.radius = int(4.0 * sigma + 0.5)
        positions = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (positions / sigma) ** 2)
        self.register_buffer("kernel", (kernel / kernel.sum()).float(), persistent=False)

    @in_float32  # half precision ties scores of alike images
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Blur ``(B, 1, H, W)``."""
        maps = F.conv2d(self._pad(maps, dim=-2), self.kernel.view(1, 1, -1, 1))
        return F.conv2d(self._pad(maps, dim=-1), self.kernel.view(1, 1, 1, -1))

    def _pad(self, maps: torch.Tensor, dim: int) -> torch.Tensor:
        # Beyond both ends a symmetric signal repeats with period 2n.
        length = maps.shape[dim]
        position = torch.arange(-self.radius, length + self.radius, device=maps.device) % (2 * length)
        return maps.index_select(dim, torch.minimum(position, 2 * length - 1 - position))
