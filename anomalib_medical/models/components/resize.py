"""Resizing that keeps what lies between the sampled pixels, in the engine and in exported graphs alike."""

from typing import Any, cast

import torch
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, Transform

from .numerics import in_float32

_BILINEAR = ("bilinear", 2)  # torchvision keeps the name, its enumeration or Pillow's number


class AntialiasedPreProcessor(PreProcessor):
    """anomalib's pre-processor, whose exported form does the same as in the engine, to images of any size.

    anomalib switches antialiasing off in exported graphs, because no operator of ONNX does it. A large reduction then
    looks at a few pixels only, and scores differ from the engine's. Here the graph resizes by two matrix products,
    whose weights are computed from the image's size. So are the sizes of what keeps an image's proportions, and the
    place of a center crop, which anomalib's exports take from the one image that they are made with.

    Args:
        transform: As anomalib's. Of its parts, bilinear ``Resize`` and ``CenterCrop`` are exported as they are;
            everything else is exported as anomalib does.
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self._make_exportable()

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what ``checkpoint_config`` gave."""
        super().load_checkpoint_config(config)
        self._make_exportable()

    def _make_exportable(self) -> None:
        if self.transform is not None and self.export_transform is not None:
            self.export_transform = cast("Transform", _exportable(self.transform, self.export_transform))


def exportable(pre_processor: nn.Module | None) -> nn.Module | None:
    """Return anomalib's pre-processor as one whose exported form does the same as the engine, others as they are."""
    known = type(pre_processor) is PreProcessor
    return AntialiasedPreProcessor(pre_processor.transform) if known else pre_processor  # type: ignore[union-attr]


def _exportable(part: nn.Module, theirs: nn.Module) -> nn.Module:
    """Replace what anomalib exports otherwise than its engine does it."""
    if isinstance(part, Compose) and isinstance(theirs, Compose):
        exported: nn.Module = Compose(
            [_exportable(*pair) for pair in zip(part.transforms, theirs.transforms, strict=True)]
        )
        return exported
    if isinstance(part, CenterCrop):
        return ExportedCrop((part.size[0], part.size[1]))
    if _is_bilinear(part) and part.size is not None and part.max_size is None:
        if len(part.size) == 1:
            return AntialiasedResize(part.size[0], antialias=bool(part.antialias))
        if part.antialias:
            return AntialiasedResize((part.size[0], part.size[1]))
    return theirs


def _is_bilinear(part: nn.Module) -> bool:
    return isinstance(part, Resize) and getattr(part.interpolation, "value", part.interpolation) in _BILINEAR


class ExportedCrop(nn.Module):
    """torchvision's ``CenterCrop``, of images of any size in an exported graph; smaller ones are padded with zeros."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Crop ``(..., H, W)``."""
        for dim, wanted in zip((-2, -1), self.size, strict=True):
            length = images.shape[dim]
            # Half of what is too much, halves rounded to even; half of what lacks, rounded down.
            much, little = torch.sym_max(length - wanted, 0), torch.sym_max(wanted - length, 0)
            start = much // 2 + (much // 2) % 2 * (much % 2) - little // 2
            positions = torch.arange(wanted, device=images.device) + start
            inside = ((positions >= 0) & (positions < length)).to(images.dtype)
            images = images.index_select(dim, positions.clamp(min=0).clamp(max=length - 1))
            images = images * (inside[:, None] if dim == -2 else inside)
        return images


class AntialiasedResize(nn.Module):
    """Bilinear resize with antialiasing as two matrix products: equal to torch's and, up to rounding, to Pillow's.

    The size is height and width of the result, or the length of its shorter side.
    """

    def __init__(self, size: tuple[int, int] | int, *, antialias: bool = True) -> None:
        super().__init__()
        self.size = size
        self.antialias = antialias

    @in_float32
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize ``(..., H, W)``."""
        height, width = images.shape[-2:]
        if isinstance(self.size, int):
            # Symbols in an exported graph: whole numbers there would be those of the one image that it is made with.
            shorter: Any = torch.sym_min(height, width)
            size = self.size * height // shorter, self.size * width // shorter
        else:
            size = self.size
        rows = _weights(images, height, size[0], antialias=self.antialias)
        columns = _weights(images, width, size[1], antialias=self.antialias)
        return rows @ images @ columns.transpose(0, 1)


def _weights(like: torch.Tensor, length: int, wanted: int, *, antialias: bool) -> torch.Tensor:
    """Weights ``(wanted, length)`` of a triangle filter: two pixels wide, or as the reduction with antialiasing."""
    pixels = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    centres = (torch.arange(wanted, device=like.device, dtype=like.dtype) + 0.5) * length / wanted
    # A tensor, because a length that is symbolic in an exported graph cannot be compared with 1.
    half_width = centres.new_ones(1).mul(length).div(wanted).clamp(min=1) if antialias else 1
    weights = (1 - (pixels - centres[:, None]).abs() / half_width).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
