"""Any timm network as a backbone: its stages, and how its images are normalised."""

import contextlib
import difflib
import logging
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import timm
import torch
from anomalib.models.components.feature_extractors.timm import _disable_pos_embed_antialiasing
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from .arguments import check_image_size

logger = logging.getLogger(__name__)

#: The residual networks that the papers use and anomalib's bottleneck and decoder are made for.
RESIDUAL = ("wide_resnet50_2", "resnet18", "resnet34", "resnet50")
_USUAL_REDUCTIONS = (4, 8, 16, 32)


class Stage(NamedTuple):
    """A feature stage of a timm network."""

    channels: int
    reduction: int


@lru_cache(maxsize=32)
def feature_stages(architecture: str, image_size: tuple[int, int] = (256, 256)) -> tuple[Stage, ...]:
    """All stages of a network, in timm's order.

    Raises:
        ValueError: If it has none.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            network: Any = create(architecture, image_size, device="meta", features_only=True)
        info = network.feature_info
        size = [side - side % max(info.reduction()) for side in image_size]
        found = network.eval()(torch.zeros(1, 3, *size, device="meta"))
        # Some networks trim their borders: no position of theirs has a fixed place in the image.
        placed = [
            {side // reduction for side in size} <= set(each.shape[1:])
            for each, reduction in zip(found, info.reduction(), strict=True)
        ]
    except (RuntimeError, AttributeError, TypeError, AssertionError, ValueError, IndexError) as error:
        logger.debug("timm on %s: %s", architecture, error)
        placed = [False]
    if not all(placed):
        msg = (
            f"backbone: {architecture} gives no pyramid of features whose strides divide images of "
            f"{image_size[0]}x{image_size[1]} pixels, expected a network that does: most convolutional ones and vision "
            f"transformers do; timm.create_model({architecture!r}, features_only=True) tells."
        )
        raise ValueError(msg)
    return tuple(Stage(each["num_chs"], each["reduction"]) for each in info.info)


def choose_layers(
    architecture: str, stages: Sequence[Stage], layers: Sequence[int] | None, count: int
) -> tuple[int, ...]:
    """Check the wanted stages, or choose those of strides 4, 8, 16 and 32."""
    reductions = [stage.reduction for stage in stages]
    have = ", ".join(f"{index} (stride {reduction})" for index, reduction in enumerate(reductions))
    if layers is not None:
        chosen = tuple(layers)
        if len(chosen) != count or list(chosen) != sorted(set(chosen)) or not set(chosen) <= set(range(len(stages))):
            told = ", ".join(f"{index} (stride {each.reduction})" for index, each in enumerate(stages))
            msg = (
                f"layers: got {list(layers)}, expected {count} different ones of {architecture}, in order, of: {told}."
            )
            raise ValueError(msg)
        return chosen
    if len(set(reductions)) == 1 and len(stages) >= count:
        return tuple(len(stages) * (index + 1) // count - 1 for index in range(count))
    wanted = _USUAL_REDUCTIONS[:count]
    if not set(wanted) <= set(reductions):
        msg = (
            f"backbone: {architecture} has no stages of the strides {', '.join(map(str, wanted))}; it has {have}: "
            f"choose {count} with --model.layers, or another backbone."
        )
        raise ValueError(msg)
    # The deepest of those that share a stride.
    return tuple(max(index for index, each in enumerate(reductions) if each == reduction) for reduction in wanted)


def check_pyramid(
    backbone: str, layers: Sequence[int] | None, count: int, image_size: int | Sequence[int], *, halved: bool = False
) -> tuple[tuple[int, ...] | None, tuple[int, int]]:
    """Check stages and image size of a teacher, whose deepest stage a student may halve once more.

    Returns:
        Both as plain tuples, the stages None if none are given.

    Raises:
        ValueError: If the network has no such stages, or they do not divide the images.
    """
    stages = feature_stages(architecture(backbone))
    chosen = choose_layers(backbone, stages, layers, count)
    stride = stages[chosen[-1]].reduction * (2 if halved else 1)
    size = check_image_size(image_size, stride, 2 * stride, f"the deepest features of {backbone} are that coarse")
    return None if layers is None else chosen, size


def create(
    architecture: str,
    image_size: tuple[int, int] = (256, 256),
    device: str | None = None,
    **kwargs: Any,  # noqa: ANN401
) -> nn.Module:
    """Build a timm network with random weights; a transformer for any image size or, where none does, for one."""
    if kwargs:
        kwargs |= {"features_only": True, "exportable": True}
    # Exported graphs cannot antialias: a transformer's positions are brought to another size as anomalib does it.
    _disable_pos_embed_antialiasing()
    for own in ({"dynamic_img_size": True}, {"img_size": image_size}, {}):
        with torch.device(device) if device else contextlib.nullcontext(), contextlib.suppress(TypeError):
            network: nn.Module = timm.create_model(architecture, pretrained=False, **kwargs, **own)
            return _without_rest(network) if kwargs else network
    msg = f"backbone: timm cannot build {architecture}."
    raise ValueError(msg)


def _without_rest(network: Any) -> nn.Module:  # noqa: ANN401 - timm has no class for them
    """Drop the blocks behind the last stage, which timm's EfficientNets and MobileNets would compute all the same."""
    last = network.feature_info.module_name()[-1]
    if last.startswith("blocks.") and isinstance(blocks := getattr(network, "blocks", None), nn.Sequential):
        del blocks[int(last.removeprefix("blocks.")) + 1 :]
    return network  # type: ignore[no-any-return]


def architecture(backbone: str) -> str:
    """A timm name without its pretrained tag, after checking that there is one."""
    name = backbone.partition(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        msg = (
            f"backbone: got {backbone!r}, which timm does not know. {'Near: ' + ', '.join(near) + '. ' if near else ''}"
            "All names: python -c \"import timm; print(timm.list_models('*resnet*'))\" (a timm tag may follow a dot)."
        )
        raise ValueError(msg)
    return name


def normalization(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images that a backbone's pretrained weights were made with.

    Raises:
        ValueError: If timm knows no such tag of the network.
    """
    name = architecture(backbone)
    try:
        config = timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name}.*"))
        msg = f"backbone: got {backbone!r}, expected {name}, or one of its weights: {tags or 'timm has none'}."
        raise ValueError(msg) from error
    return (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if config is None else (config.mean, config.std)
