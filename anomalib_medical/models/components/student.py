"""What learns from a teacher: a bottleneck that fuses its scales, and a decoder that gives them back."""

import math
from collections.abc import Sequence

import torch
from anomalib.models.components.backbone import get_decoder
from anomalib.models.image.reverse_distillation.components import get_bottleneck_layer
from torch import nn
from torchvision.models.resnet import BasicBlock

from .backbones import RESIDUAL
from .teacher import Teacher


def _width(channels: int) -> int:
    """Channels of the student for those of the teacher: twice as many, of wide teachers no more than these have."""
    return min(2 * channels, max(channels, 256))


class Bottleneck(nn.Module):
    """Fuse scales ``(B, C_k, H / r_k, W / r_k)`` into an embedding ``(B, E, H / 2r, W / 2r)`` of half the deepest.

    Args:
        channels: C_k.
        reductions: r_k, ascending.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int]) -> None:
        super().__init__()
        widths = [_width(count) for count in channels]
        self.lower = nn.ModuleList(
            _lowering(count, width, math.log2(reductions[-1] / reduction))
            for count, width, reduction in zip(channels, widths, reductions, strict=True)
        )
        self.out_channels = widths[-1]
        self.fuse = _block(sum(widths), self.out_channels, stride=2)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed the features of all scales."""
        lowered = [lower(each) for lower, each in zip(self.lower, features, strict=True)]
        embedding: torch.Tensor = self.fuse(torch.cat(lowered, dim=1))
        return embedding


class Decoder(nn.Module):
    """Rebuild a teacher's scales ``(B, C_k, H / r_k, W / r_k)`` from an embedding.

    Args:
        in_channels: Channels of the embedding.
        in_reduction: Its reduction.
        channels: C_k.
        reductions: r_k, ascending.
    """

    def __init__(self, in_channels: int, in_reduction: int, channels: Sequence[int], reductions: Sequence[int]) -> None:
        super().__init__()
        stages, heads = [], []
        width, reduction = in_channels, in_reduction
        for count, target in zip(reversed(channels), reversed(reductions), strict=True):
            up = nn.Upsample(scale_factor=reduction / target, mode="nearest") if reduction > target else nn.Identity()
            stages.append(nn.Sequential(up, _block(width, _width(count))))
            heads.append(nn.Conv2d(_width(count), count, kernel_size=1))
            width, reduction = _width(count), target
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        """Features fine to coarse, as the teacher gives them."""
        features = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            embedding = stage(embedding)
            features.append(head(embedding))
        return features[::-1]


def build_bottleneck(teacher: Teacher) -> tuple[nn.Module, int]:
    """Bottleneck of three scales and its number of output channels: anomalib's for the papers' networks."""
    name = teacher.architecture
    if name not in RESIDUAL or teacher.layers != (1, 2, 3):
        bottleneck = Bottleneck(teacher.channels, teacher.reductions)
        return bottleneck, bottleneck.out_channels
    # The paper's width; anomalib's default is 64.
    width = {"width_per_group": 128} if name == "wide_resnet50_2" else {}
    theirs = get_bottleneck_layer(name, **width)
    # Never used by its forward: parameters without a gradient break distributed training.
    del theirs.conv4, theirs.bn4
    return theirs, 2 * teacher.channels[-1]


def build_decoder(teacher: Teacher, in_channels: int, in_reduction: int) -> nn.Module:
    """Decoder of the teacher's first three scales: anomalib's for the papers' networks."""
    if teacher.architecture in RESIDUAL and teacher.layers[:3] == (1, 2, 3):
        theirs: nn.Module = get_decoder(teacher.architecture)
        return theirs
    return Decoder(in_channels, in_reduction, teacher.channels[:3], teacher.reductions[:3])


def _lowering(in_channels: int, out_channels: int, halvings: float) -> nn.Module:
    """Convolutions of stride 2 down to the deepest scale; one without a stride where that is reached."""
    strides = [2] * round(halvings) or [1]
    layers: list[nn.Module] = []
    for stride in strides:
        layers += [
            nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
        in_channels = out_channels
    return nn.Sequential(*layers)


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """A residual block, whose way around changes channels and size."""
    around = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )
    block: nn.Module = BasicBlock(in_channels, out_channels, stride, around)
    return block
