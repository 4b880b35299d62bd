"""What a command with ``--ckpt_path`` need not be told: the checkpoint says how its model was built and images read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from anomalib.models.components import AnomalibModule
from jsonargparse import Namespace
from jsonargparse.util import import_object

from anomalib_medical.cli.reading_options import READING, as_in_training
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.checkpoints import (
    arguments_of,
    check_arguments,
    check_class,
    class_of,
    pre_processor_of,
    read_checkpoint,
)

logger = logging.getLogger(__name__)

# Those that do not train.
WITH_CHECKPOINT = frozenset({"test", "validate", "predict", "export"})
_FILES = frozenset({".yaml", ".yml", ".json"})


@dataclass
class AsTrained:
    """The checkpoint of a command, and the arguments that the command itself has."""

    path: Path
    content: dict[str, Any]
    given: dict[str, Any]  # see `given_arguments`

    @classmethod
    def of(cls, arguments: Sequence[str]) -> AsTrained | None:
        """Read the checkpoint that a command is given; None if it has none, or trains."""
        given = given_arguments(arguments[1:]) if arguments and arguments[0] in WITH_CHECKPOINT else {}
        if not (name := given.get("ckpt_path")):
            return None
        return cls(Path(name), read_checkpoint(name), given)

    def model(self) -> dict[str, Any]:
        """Class and arguments of the trained model, as jsonargparse takes them; a given class must be the same."""
        cls = class_of(self.content, self.path, self.given.get("model.class_path"))
        check_class(self.content, cls, str(self.path))
        return {
            "class_path": f"{cls.__module__}.{cls.__qualname__}",
            "init_args": arguments_of(self.content, cls),
        }

    def settle_reading(self, options: Namespace) -> None:
        """Fill in how the training read files, where the command does not say it."""
        data, init_args = options.get("data"), options.model.init_args
        if isinstance(data, str | Path):
            place, prefix, given = options, "", {name: options[name] for name in READING if options[name] is not None}
        elif hasattr(data, "init_args") and issubclass(import_object(data.class_path), MedicalDataModule):
            place, prefix = data.init_args, "data."
            given = {name: place[name] for name in READING if f"data.{name}" in self.given and name in place}
        else:
            return
        trained = dict(self.content.get("reading", {}))
        if init_args.get("support_dir"):
            # Another task, whose files may need another window.
            trained["window"] = given.get("window", trained.get("window"))
        reading = as_in_training(trained, given, self.path, prefix)
        for name in (name for name in READING if name in place):
            place[name] = reading.get(name, place[name])
        if init_args.get("support_dir") and init_args.get("support_window") is None:
            init_args["support_window"] = place.get("window")

    def check(self, model: AnomalibModule, subcommand: str) -> None:
        """Refuse a model that was built otherwise than the trained one, or say what differs."""
        differing = check_arguments(self.content, model)
        if hasattr(model, "score_arguments"):
            return  # scores do not depend on the others
        differing.pop("pre_trained", None)
        told = "; ".join(f"{key}: checkpoint {had!r}, given {has!r}" for key, (had, has) in differing.items())
        if told and subcommand == "export":
            msg = f"An export is of the checkpoint as it is ({told}). Leave out what differs, or train with it."
            raise MedicalError(msg)
        if told:
            logger.warning("Not as trained: %s. The threshold is that of the training.", told)

    def build(self, model: AnomalibModule, init_args: Namespace) -> AnomalibModule:
        """Build a model of anomalib's anew with the pre-processor of its training, if it was another one."""
        pre_processor = pre_processor_of(self.content, type(model))
        own: Any = model.pre_processor
        if pre_processor is None or init_args.get("pre_processor") is not True:
            return model
        if own is not None and own.checkpoint_config() == pre_processor.checkpoint_config():
            return model
        kept = {name: getattr(model, name) or False for name in ("post_processor", "evaluator", "visualizer")}
        return type(model)(**model.hparams, pre_processor=pre_processor, **kept)


def given_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """What a command line and its configuration files say, by names such as ``data.window``; later ones win.

    Values of the command line are text. The class of ``model`` and ``data`` is their ``class_path``; what is among
    ``init_args`` stands beside it.
    """
    given: dict[str, Any] = {}
    words = [word for argument in arguments for word in _split(argument)]
    for name, value in zip(words, [*words, ""][1:], strict=True):
        if name in {"-c", "--config"}:
            given |= _of_file(value)
        elif name in {"--model", "--data"} and Path(value).suffix in _FILES:
            given |= _flat(name[2:], _content(value))
        elif name in {"--model", "--data"}:
            given[f"{name[2:]}.class_path"] = value
        elif name.startswith("--"):
            given[name[2:].replace(".init_args.", ".")] = value
    return given


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") else [argument]


def _of_file(path: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in _content(path).items():
        given |= _flat(name, value) if name in {"model", "data"} else {name: value}
    return given


def _flat(name: str, value: object) -> dict[str, Any]:
    """``{class_path: A, init_args: {b: 1}}`` as ``name.class_path`` and ``name.b``; also ``A`` alone."""
    if not isinstance(value, dict):
        return {f"{name}.class_path": value}
    inner = {**value, **(value.get("init_args") or {})}
    return {f"{name}.{key}": each for key, each in inner.items() if key != "init_args"}


def _content(path: str) -> dict[str, Any]:
    """What a configuration file holds; what is wrong with it is the parser's to say."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
