"""What is often mistyped for anomalib's subcommands, told in a line before the parser tells it in many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from anomalib_medical.cli.as_trained import WITH_CHECKPOINT, given_arguments
from anomalib_medical.errors import MedicalError, shell_argument
from anomalib_medical.registration import find_datamodule, find_model

_TRAINS = frozenset({"fit", "train"})
# Not class paths, nor what YAML makes of more than a name.
_SHORT_NAME = re.compile(r"[\w-]+")


def check_typed(arguments: Sequence[str]) -> None:
    """Refuse names of no model and no data set, a folder in place of one, and a command that lacks its model."""
    subcommand, *rest = arguments or [""]
    options = {argument.partition("=")[0] for argument in rest if argument.startswith("-")}
    if subcommand not in _TRAINS | WITH_CHECKPOINT or any(re.search(r"^-h$|\bhelp$", option) for option in options):
        return
    given = given_arguments(rest)
    model = given.get("model.class_path")
    if isinstance(model, str) and _SHORT_NAME.fullmatch(model):
        find_model(model, "--model")
    if subcommand in {*_TRAINS, "test", "validate"}:
        _check_data(given.get("data.class_path"))
    # What a file says, which may be missing, is for the parser.
    if options & {"-c", "--config", "--print_config"}:
        return
    if not any(option.split(".")[0] == "--model" for option in options) and "ckpt_path" not in given:
        trains = subcommand in _TRAINS
        needs = "model: give --model Scrd, or another" if trains else "trained model: give --ckpt_path model.ckpt"
        msg = f"`{subcommand}` needs a {needs}."
        raise MedicalError(msg)
    of_data = sorted(option for option in options if option.startswith("--data."))
    if of_data and "--data" not in options and "data.class_path" not in given:
        msg = f"{of_data[0]} is an argument of a data set, and none is named: give --data MedicalFolder, or another."
        raise MedicalError(msg)


def _check_data(name: object) -> None:
    if not isinstance(name, str) or "{" in name:
        return
    try:
        if _SHORT_NAME.fullmatch(name):
            find_datamodule(name, "--data")
            return
    except MedicalError:
        if not Path(name).is_dir():
            raise
    if Path(name).is_dir():
        root = shell_argument("data.root", name)
        msg = f"--data is the folder {name}, expected a data set: give --data MedicalFolder {root}."
        raise MedicalError(msg)
