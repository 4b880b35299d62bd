"""What a query is compared with: the support's features of the same position, or the most similar ones near it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical.models.components import in_float32

# Pairs of positions that are looked at together, of each query with each support image: half a megabyte.
_PAIRS_AT_ONCE = 2**17


class EncodedSupport(NamedTuple):
    """Support of one level: features and keys, both ``(K, C, H, W)``, float32; one tensor where nothing is weighed."""

    features: torch.Tensor
    keys: torch.Tensor


class SupportAttention(nn.Module):
    """Weighted mean of the support's features at one level, another one for every query (D2-4FAD, learn-to-weight).

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


def joined(scales: Sequence[torch.Tensor]) -> torch.Tensor:
    """Bring three scales to the second one's height and width, and join their channels: ``(B, C_1 + C_2 + C_3, H, W)``.

    So a position has one most similar position, and not another one at every scale. Features are unit vectors before
    that: squared distances between joined ones are sums of cosine distances.
    """
    fine, middle, coarse = (F.normalize(scale.float(), dim=1) for scale in scales)
    coarse = F.interpolate(coarse, middle.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([F.avg_pool2d(fine, fine.shape[-1] // middle.shape[-1]), middle, coarse], dim=1)


def nearest_distances(query: torch.Tensor, support: torch.Tensor, window: float = 1.0) -> torch.Tensor:
    """Distance of each position of queries ``(B, C, H, W)`` to the nearest one of each support image ``(K, C, H, W)``.

    Squared, in units of the support's mean squared length; looked for no further away, up, down, left or right, than
    the share ``window`` of height and width. Costs up to B K (H W)^2 C products, less the smaller the window is, and
    half a megabyte for each of B K.

    Returns:
        ``(B, K, H, W)``, float32.
    """
    height, width = query.shape[-2:]
    reach = int(window * height + 1e-6)
    lines, columns = (torch.arange(side, device=query.device) for side in (height, width))
    is_far = (columns[:, None] - columns).abs() > window * width + 1e-6
    # A fixed number of steps for a size of the map: exported graphs repeat them.
    rows = max(1, _PAIRS_AT_ONCE // (width * min(height, 2 * reach + 1) * width))
    found = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - reach), min(height, bottom + reach)
        is_above = (lines[top:bottom, None] - lines[first:last]).abs() > reach
        outside = (is_above[:, None, :, None] | is_far[None, :, None, :]).flatten(2).flatten(0, 1)  # (P, P')
        here, near = query[:, :, top:bottom].flatten(2), support[:, :, first:last].flatten(2)
        found.append(_nearest(here.transpose(1, 2), near.transpose(1, 2), outside))
    unit: torch.Tensor = support.float().square().sum(dim=1).mean()
    return torch.cat(found, dim=2).reshape(-1, support.shape[0], height, width) / unit.clamp(min=1e-12)


@in_float32
def _nearest(query: torch.Tensor, support: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Squared distances ``(B, K, P)`` of ``(B, P, C)`` to the nearest of ``(K, P', C)`` not ``outside`` ``(P, P')``."""
    vectors = support.flatten(0, 1)
    # Of the squares of the differences, which would be C times as many numbers; what all candidates share comes last.
    own = vectors.square().sum(dim=1) - 2 * query @ vectors.transpose(0, 1)
    own = own.view(*query.shape[:2], support.shape[0], -1).masked_fill(outside[:, None], float("inf"))  # (B, P, K, P')
    distances: torch.Tensor = own.amin(dim=-1) + query.square().sum(dim=-1, keepdim=True)
    return distances.clamp(min=0).transpose(1, 2)


class SupportSet(nn.Module):
    """The encoded support in buffers: part of checkpoints and of exported graphs, for any number of images.

    Args:
        weighed: Whether the images are weighed, of each level: only then keys are kept.
    """

    def __init__(self, weighed: Sequence[bool] = (True, True, True)) -> None:
        super().__init__()
        self.weighed = tuple(weighed)
        #: Of the buffers, level by level.
        self.names = [
            f"{part}_{level}"
            for level, has_keys in enumerate(self.weighed)
            for part in (EncodedSupport._fields if has_keys else EncodedSupport._fields[:1])
        ]
        for name in self.names:
            self.register_buffer(name, torch.empty(0, 0, 0, 0))

    def __len__(self) -> int:
        """Count the support images."""
        return int(self.get_buffer("features_0").shape[0])

    def __iter__(self) -> Iterator[EncodedSupport]:
        """Go through the levels."""
        return iter(self.unflatten([self.get_buffer(name) for name in self.names]))

    def flatten(self, encoded: Sequence[EncodedSupport]) -> list[torch.Tensor]:
        """Tensors in the order of :attr:`names`."""
        return [part for one, has_keys in zip(encoded, self.weighed, strict=True) for part in one[: 1 + has_keys]]

    def unflatten(self, tensors: Sequence[torch.Tensor]) -> list[EncodedSupport]:
        """Take :meth:`flatten` back."""
        named = dict(zip(self.names, tensors, strict=True))
        return [
            EncodedSupport(named[f"features_{level}"], named[f"{'keys' if has_keys else 'features'}_{level}"])
            for level, has_keys in enumerate(self.weighed)
        ]

    def fill(self, encoded: Sequence[EncodedSupport]) -> bool:
        """Replace the support, one part a level; return whether it is another one, but for rounding."""
        same = all(
            old.features.shape == new.features.shape
            and bool((F.cosine_similarity(old.features.flatten(1), new.features.flatten(1)) > 1 - 1e-4).all())
            for old, new in zip(self, encoded, strict=True)
        )
        for name, value in zip(self.names, self.flatten(encoded), strict=True):
            setattr(self, name, value.detach().clone())
        return not same

    def fit_to(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Make room for the support that a state dict has under a prefix, of however many images."""
        for name, own in list(self.named_buffers()):
            given = state_dict.get(prefix + name)
            if given is not None and given.shape != own.shape:
                setattr(self, name, own.new_empty(given.shape))
        for level, has_keys in enumerate(self.weighed):
            if not has_keys:
                # Version 0.1 kept the features twice.
                state_dict.pop(f"{prefix}keys_{level}", None)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's hook
        self.fit_to(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
