"""Resizing that keeps what lies between the sampled pixels, in the engine and in exported graphs alike."""

from typing import Any

import torch
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import Compose, Resize, Transform

_BILINEAR = ("bilinear", 2)  # torchvision keeps the name, its enumeration or Pillow's number


class AntialiasedPreProcessor(PreProcessor):
    """anomalib's pre-processor, whose exported form resizes with antialiasing too.

    anomalib switches antialiasing off in exported graphs, because no operator of ONNX does it. A large reduction then
    looks at a few pixels only, and scores differ from the engine's. Here the graph resizes by two matrix products,
    whose weights are computed from the image's size.

    Args:
        transform: As anomalib's. Of its parts, bilinear ``Resize`` to a height and a width with ``antialias=True`` are
            exported as they are; everything else is exported as anomalib does.
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.export_transform = self._exportable()

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what ``checkpoint_config`` gave."""
        super().load_checkpoint_config(config)
        self.export_transform = self._exportable()

    def _exportable(self) -> Transform | None:
        theirs = self.export_transform
        parts = self.transform.transforms if isinstance(self.transform, Compose) else [self.transform]
        exported = theirs.transforms if isinstance(theirs, Compose) else [theirs]
        chosen = [
            AntialiasedResize((part.size[0], part.size[1])) if _is_antialiased(part) else export
            for part, export in zip(parts, exported, strict=True)
        ]
        return Compose(chosen) if isinstance(theirs, Compose) else chosen[0]


def _is_antialiased(part: Transform | None) -> bool:
    return (
        isinstance(part, Resize)
        and bool(part.antialias)
        and getattr(part.interpolation, "value", part.interpolation) in _BILINEAR
        and part.size is not None
        and len(part.size) == 2
    )


class AntialiasedResize(nn.Module):
    """Bilinear resize with antialiasing as two matrix products: equal to torch's and, up to rounding, to Pillow's.

    Args:
        size: Height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize ``(..., H, W)``."""
        rows = _weights(images, images.shape[-2], self.size[0])
        columns = _weights(images, images.shape[-1], self.size[1])
        return rows @ images @ columns.transpose(0, 1)


def _weights(like: torch.Tensor, length: int, wanted: int) -> torch.Tensor:
    """Weights ``(wanted, length)`` of a triangle filter as wide as the reduction, at least two pixels."""
    pixels = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    centres = (torch.arange(wanted, device=like.device, dtype=like.dtype) + 0.5) * length / wanted
    # A tensor, because a length that is symbolic in an exported graph cannot be compared with 1.
    half_width = torch.full_like(centres[:1], 1 / wanted).mul(length).clamp(min=1)
    weights = (1 - (pixels - centres[:, None]).abs() / half_width).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
