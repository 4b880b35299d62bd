"""Checkpoints as files: read with one line for whatever is wrong with them, and written whole or not at all.

Whatever is wrong is a MedicalError.
"""

import contextlib
import inspect
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import torch
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models.components import AnomalibModule
from anomalib.models.image.super_add import SuperADDPostProcessor
from anomalib.post_processing import MEBinPostProcessor, PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.utils.path import create_versioned_dir
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_medical.errors import FULL, MedicalError, shell_argument
from anomalib_medical.post_processing import MedicalPostProcessor
from anomalib_medical.registration import find_model, known_models

_WANTED = "Give the model.ckpt that a training has written."
_COMPONENTS = frozenset({"pre_processor", "post_processor", "evaluator", "visualizer"})
# Of classes that know the same settings, the first is taken.
_POST_PROCESSORS: tuple[type[PostProcessor], ...] = (
    PostProcessor,
    MedicalPostProcessor,
    MEBinPostProcessor,
    SuperADDPostProcessor,
)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what a training has saved; tensors stay in the file until they are used."""
    # Some models keep enumerations of their own; which model it is stands in the file, if at all.
    types = {one for cls in known_models().values() for one in cls.checkpoint_safe_globals()}
    with _explained(path), anomalib_safe_globals(extra=list(types)):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict) or "state_dict" not in content:
        msg = f"{path} holds no trained model (no state_dict). {_WANTED}"
        raise MedicalError(msg)
    return content


def write_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint; what was there before stays until the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    # Beside it: renaming is one step within a file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        kept = "The one that was there before is kept as it was." if path.exists() else "There is none now."
        size = buffer.getbuffer().nbytes / 2**20
        msg = (
            f"The checkpoint {path} was not written: {os.strerror(error.errno)} ({size:.1f} MiB are needed). {kept} "
            "Make room there, or choose another folder with --default_root_dir."
        )
        raise MedicalError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


class MedicalCheckpointIO(AnomalibCheckpointIO):
    """anomalib's way to read and write checkpoints, with `write_checkpoint`'s care and `read_checkpoint`'s messages."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401 - Lightning's
        """Write a checkpoint; one on a remote store as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - Lightning's
        """Read a checkpoint to go on from; one on a remote store as Lightning does."""
        with contextlib.nullcontext() if "://" in str(path) else _explained(path):
            content: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        return content


class RunFiles(Callback):
    """Write checkpoints by `MedicalCheckpointIO`, and test or predict in a version folder where nothing ran before.

    Checkpoints say of any model of which class it is, and how its images were read.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before anything is read or written, but for a copy of the configuration."""
        del pl_module, stage
        theirs = trainer.strategy.checkpoint_io
        if type(theirs) is AnomalibCheckpointIO:
            trainer.strategy.checkpoint_io = MedicalCheckpointIO(theirs.extra_safe_globals)
        if trainer.is_global_zero:
            settle_latest(Path(trainer.default_root_dir))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Before a checkpoint is written."""
        del trainer
        describe(checkpoint, pl_module)


def describe(checkpoint: dict[str, Any], model: LightningModule) -> None:
    """Write down what commands need that are given a checkpoint alone.

    ``model_class`` is a short name or, of a class that has none, its path; ``post_processor_class`` a name; ``reading``
    the options that the training's pixels depend on, as `MedicalDataModule` has them.
    """
    checkpoint["model_class"] = class_name(type(model))
    if (post_processor := getattr(model, "post_processor", None)) is not None:
        checkpoint["post_processor_class"] = type(post_processor).__name__
    datamodule = getattr(model._trainer, "datamodule", None)  # noqa: SLF001 - `trainer` is an error where there is none
    if (reading := getattr(datamodule, "reading", None)) is not None:
        checkpoint["reading"] = dict(reading)


def class_name(cls: type) -> str:
    """The short name of a model's class, or its path if it has none."""
    registered = known_models().get(cls.__name__) is cls
    return cls.__name__ if registered else f"{cls.__module__}.{cls.__qualname__}"


def settle_latest(folder: Path, *, make: bool = True) -> None:
    """Make a folder named ``latest`` (others are left alone) the link to a version that anomalib's training expects.

    Where nothing was trained, anomalib's test and prediction make it a real folder, and the next training fails. What
    is in it is kept, in the version folder. Where there is nothing, the link is made if ``make`` says so.
    """
    if folder.name != "latest" or folder.is_symlink() or not (make or folder.is_dir()):
        return
    held = folder.rename(folder.with_name(".latest")) if folder.is_dir() else None
    version = create_versioned_dir(folder.parent)
    if held is not None:
        version.rmdir()
        held.rename(version)


def check_restorable(content: dict[str, Any], path: Path, cls: type[AnomalibModule], *, resume: bool = False) -> None:
    """Refuse a checkpoint that a model of this class cannot be restored from, before Lightning stumbles over it.

    With ``resume`` training shall go on from it; without, only its weights be taken.
    """
    check_class(content, cls, str(path))
    pre_processes = content.get("anomalib_components_enabled", {}).get("pre_processor")
    fault = None
    if pre_processes and content.get("anomalib_pre_processor_config") == {"transform": None}:
        fault = (
            "lacks the transform of the model's pre-processor, which anomalib could not save: what scores depend on "
            "is not known. Train with Resize, CenterCrop, SquarePad, Grayscale and Normalize (others belong into the "
            "data's augmentations), or with pre_processor: false"
        )
    elif "pytorch-lightning_version" not in content:
        fault = "holds weights, and not who saved them: no training by Lightning has written it"
    elif resume and not {"optimizer_states", "loops"} <= content.keys():
        fault = "holds weights only (of `retarget`, or saved without the optimizer): training cannot go on from it"
    if fault:
        msg = f"{path} {fault}."
        raise MedicalError(msg)


def check_class(content: dict[str, Any], cls: type[AnomalibModule], name: str = "This") -> None:
    """Refuse a checkpoint of another class."""
    classes = classes_of(content)
    # A class of somebody else's may have the arguments of one of anomalib's.
    comparable = "model_class" in content or cls.__name__ in known_models()
    if classes and comparable and not {one.__name__ for one in cls.__mro__} & set(classes):
        msg = f"{name} is a checkpoint of another class: of {' or '.join(classes)}, not of {cls.__name__}."
        raise MedicalError(msg)


def classes_of(content: dict[str, Any]) -> list[str]:
    """Name the class of a checkpoint: the one it says, or those of anomalib's that have its arguments."""
    if "model_class" in content:
        return [str(content["model_class"]).rpartition(".")[2]]
    arguments = set(content.get("hyper_parameters", {}))
    return sorted(
        name
        for name, cls in known_models().items()
        if arguments and arguments == inspect.signature(cls).parameters.keys() - _COMPONENTS
    )


def class_of(content: dict[str, Any], path: Path, given: str | None = None) -> type[AnomalibModule]:
    """Find the class of a checkpoint: the one that is given as ``Patchcore`` or ``package.Class``, or that it names."""
    if given is not None:
        return find_model(given, "--model")
    named = content.get("model_class")
    if named in (known := known_models()):
        return known[str(named)]
    if named is None:
        likely = " or ".join(classes_of(content)) or "Patchcore"
        msg = f"{path} does not name its model, as checkpoints of plain anomalib do not: give --model {likely}."
    elif "." in str(named):
        # What a file says is no reason to import, and so to run, anything.
        msg = f"{path} is of a model that has no short name: give --model {named}."
    else:
        msg = f"{path} is of a model {named}, and there is none of that name: give its class, --model package.{named}."
    raise MedicalError(msg)


def arguments_of(content: dict[str, Any], cls: type[AnomalibModule]) -> dict[str, Any]:
    """Arguments that a model was built with, as far as its class takes them, but for the download of weights."""
    parameters = inspect.signature(cls).parameters
    arguments = {
        # A parameter of type `str | PrecisionType` takes the text, which can be written to a configuration file too.
        key: value.value if isinstance(value, Enum) and parameters[key].annotation is not type(value) else value
        for key, value in content.get("hyper_parameters", {}).items()
        if key in parameters
    }
    # All weights are in the checkpoint.
    return arguments | ({"pre_trained": False} if "pre_trained" in parameters else {})


def differing_arguments(content: dict[str, Any], model: AnomalibModule) -> dict[str, tuple[Any, Any]]:
    """Arguments of which the checkpoint says another value than the model was built with: its and the model's."""
    theirs = dict(content.get("hyper_parameters", {}))
    if theirs:
        # What an earlier version did not know is as it was then.
        parameters = inspect.signature(type(model)).parameters
        known = getattr(model, "score_arguments", ())
        theirs = {key: parameters[key].default for key in known if key in parameters} | theirs
    return {
        key: (theirs[key], value)
        for key, value in model.hparams.items()
        if key in theirs and not _same(theirs[key], value)
    }


def check_arguments(content: dict[str, Any], model: AnomalibModule) -> dict[str, tuple[Any, Any]]:
    """Refuse a model that was built otherwise, before torch lists every tensor or scores come out wrong.

    Compared are the network's tensors, and of our models what scores depend on besides. Returns the arguments that
    differ all the same, see `differing_arguments`.
    """
    saved, own = (
        {key: value.shape for key, value in state.items() if key.startswith("model.")}
        for state in (content["state_dict"], model.state_dict())
    )
    # What is learnt as it comes, such as a memory bank, is empty or one number until then.
    fits = saved.keys() == own.keys() and all(saved[key] == size or size.numel() < 2 for key, size in own.items())
    differing = differing_arguments(content, model)
    scoring = getattr(model, "score_arguments", None)
    # A threshold holds for scores of one kind and images of one size. Others' models may load what we do not know.
    if (fits or (scoring is None and not differing)) and not differing.keys() & (scoring or ()):
        return differing
    # Where weights came from says nothing of a checkpoint, which has them all.
    differing.pop("pre_trained", None)
    told = "; ".join(f"{key}: checkpoint {had!r}, this model {has!r}" for key, (had, has) in differing.items())
    options = " ".join(shell_argument(f"model.{key}", had) for key, (had, _) in differing.items())
    msg = (
        f"The checkpoint is not of this {type(model).__name__} ({told or 'its tensors differ'}). Build the model "
        f"with the checkpoint's arguments: {options or 'those it was trained with'}. (`anomalib-medical` reads "
        "them from it where they are left out.)"
    )
    raise ValueError(msg)


def _same(saved: object, value: object) -> bool:
    """Whether a checkpoint's value is this one: tuples may be lists, and it keeps paths as text."""
    if isinstance(value, PurePath):
        return isinstance(saved, str | PurePath) and PurePath(saved) == value
    if isinstance(value, list | tuple) and isinstance(saved, list | tuple):
        return len(saved) == len(value) and all(map(_same, saved, value))
    return saved == value


def post_processor_of(content: dict[str, Any], path: Path) -> PostProcessor | bool:
    """Build the post-processor that a model was trained with, of which anomalib restores the settings alone.

    Returns one whose settings are still to be loaded, or whether there is one, if the checkpoint does not say which.
    """
    config = content.get("anomalib_post_processor_config")
    if config is None:
        return bool(content.get("anomalib_components_enabled", {}).get("post_processor", True))
    # Lightning keeps the state of callbacks, of which it is one, by the names of their classes.
    states = content.get("callbacks", {}).items()
    kept = [name for name, state in states if isinstance(state, dict) and "_image_threshold" in state]
    name = content.get("post_processor_class", kept[0] if kept else None)
    for cls in _POST_PROCESSORS:
        built = cls()
        if name == cls.__name__ or (name is None and config.keys() <= built.checkpoint_config().keys()):
            return built
    msg = (
        f"{path} was trained with a post-processor that is not known ({name or ', '.join(sorted(config))}): what its "
        "threshold and normalised scores mean cannot be told. Name it by --model.post_processor, or train with "
        "anomalib_medical.MedicalPostProcessor."
    )
    raise MedicalError(msg)


def pre_processor_of(content: dict[str, Any], cls: type[AnomalibModule]) -> PreProcessor | None:
    """Build the pre-processor that a model of anomalib's was trained with; None if it does not say, and for ours.

    anomalib restores it after the model is built, but some of its models build parts of themselves for their image
    size: `ReverseDistillation` would smooth and resize its maps as those of images of 256 pixels.
    """
    config = content.get("anomalib_pre_processor_config")
    if not config or hasattr(cls, "score_arguments"):
        return None
    pre_processor = PreProcessor()
    pre_processor.load_checkpoint_config(config)
    return pre_processor


@contextlib.contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Say what is wrong with a file that cannot be loaded; what torch says of it is long and of many kinds."""
    file = Path(path)
    if not file.exists():
        msg = f"There is no checkpoint {path}. {_WANTED}"
        raise MedicalError(msg)
    if file.is_dir():
        inside = next(iter(sorted(file.rglob("model*.ckpt"))), None)
        msg = f"{path} is a folder, no checkpoint. " + (_WANTED if inside is None else f"Did you mean {inside}?")
        raise MedicalError(msg)
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        msg = f"{path} could not be read as a checkpoint: {_fault(file, error)}. {_WANTED}"
        raise MedicalError(msg) from error


def _fault(file: Path, error: Exception) -> str:
    if file.stat().st_size == 0:
        return "it is empty (was the disk full when it was written?)"
    with file.open("rb") as opened:
        zipped = opened.read(2) == b"PK"
    if zipped and not zipfile.is_zipfile(file):
        return "its end is missing, it was not written or copied completely"
    found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and found:
        return f"it holds objects ({found[1]}) that are not loaded from files, as exported models do"
    if not zipped:
        return "it is a file of another kind"
    return f"it is damaged, or a file of another kind ({type(error).__name__})"
