"""Learn-to-weight: how much each support image counts for a query."""

import torch
from torch import nn

from anomalib_medical.models.components import in_float32


class SupportAttention(nn.Module):
    """Weighted mean of the support's features at one scale, another one for every query (D2-4FAD, learn-to-weight).

    ``weights_k = softmax_k(<key_k, query> / sqrt(C))`` over all positions and channels, with keys from a 1x1
    convolution of the support. The convolution has no bias: it would add the same to every logit of a query, which a
    softmax does not see. All in float32, whatever the autocast.

    Args:
        channels: Channels of the features.
        learned: False for equal weights.
    """

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, kernel_size=1, bias=False) if learned else None

    @in_float32
    def keys(self, support: torch.Tensor) -> torch.Tensor:
        """Keys of support features ``(K, C, H, W)``, of the same shape."""
        return support if self.project is None else self.project(support)

    @in_float32
    def forward(
        self, query: torch.Tensor, support: torch.Tensor, keys: torch.Tensor, member: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weigh support features ``(K, C, H, W)``, with their :meth:`keys`, for each query ``(B, C, H, W)``.

        ``member`` ``(B, K)``, bool, says which images are in the support of which query; None for all in all.
        """
        mean = self.weights(query, keys, member) @ support.flatten(1)
        return mean.reshape(-1, *support.shape[1:])

    @in_float32
    def weights(self, query: torch.Tensor, keys: torch.Tensor, member: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``(B, K)``, which adds up to one for every query; arguments as in :meth:`forward`."""
        # What all keys have in common cancels in the softmax, but not in the rounding of its large logits.
        differences = keys - keys.mean(dim=0, keepdim=True)
        logits = query.flatten(1) @ differences.flatten(1).transpose(0, 1) * query.shape[1] ** -0.5
        if self.project is None:
            logits = torch.zeros_like(logits)
        if member is not None:
            logits = logits.masked_fill(~member, float("-inf"))
        weights: torch.Tensor = logits.softmax(dim=1)
        return weights
