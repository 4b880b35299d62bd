"""`train --resume` and `fit --resume`: go on with the last run of the same model and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from jsonargparse import ArgumentParser

from anomalib_medical.cli.parser import PROGRAM
from anomalib_medical.errors import MedicalError, shell_argument
from anomalib_medical.models.components.checkpoints import check_restorable, differing_arguments, read_checkpoint


def add_resume_option(parser: ArgumentParser) -> None:
    """Declare it."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Go on where the last run of this model on this data stopped, in its version folder below "
        "--default_root_dir, with the arguments it had.",
    )


@dataclass
class LastRun:
    """Where a training stopped."""

    folder: Path  # its version folder
    checkpoint: Path
    content: dict[str, Any]

    def check(self, model: AnomalibModule, datamodule: object, limits: Mapping[str, Any]) -> None:
        """Refuse what would be another training than the one that stopped, and one that had ended.

        Args:
            model: The model as this command builds it.
            datamodule: The data as this command reads it.
            limits: The trainer's ``max_epochs`` and ``max_steps``.
        """
        check_restorable(self.content, self.checkpoint, type(model), resume=True)
        differing = {f"model.{name}": both for name, both in differing_arguments(self.content, model).items()}
        now = getattr(datamodule, "reading", {})
        for name, had in self.content.get("reading", {}).items():
            if _plain(had) != _plain(now.get(name)):
                differing[f"data.{name}"] = (had, now.get(name))
        if differing:
            told = "; ".join(f"{name}: it had {had!r}, this has {has!r}" for name, (had, has) in differing.items())
            options = " ".join(shell_argument(name, had) for name, (had, _) in differing.items())
            msg = (
                f"--resume: the last run, in {self.folder}, was another one ({told}). Give {options}, or start anew "
                "without --resume."
            )
            raise MedicalError(msg)
        done = {"max_epochs": _epochs(self.content), "max_steps": self.content.get("global_step", 0)}
        for name, count in done.items():
            if (limit := limits.get(name)) is not None and 0 <= limit <= count:
                test = f"{PROGRAM} test {shell_argument('ckpt_path', self.checkpoint)} ..."
                msg = (
                    f"--resume: the last run, in {self.folder}, had ended (--trainer.{name} {limit}). Train longer "
                    f"with a larger one, test it by `{test}`, or start anew without --resume."
                )
                raise MedicalError(msg)


def find_last_run(folder: Path) -> LastRun:
    """Find the newest version in a folder of runs, and its latest checkpoint that training can go on from."""
    versions = [each for each in folder.glob("v*") if each.is_dir() and each.name[1:].isdigit()]
    if not versions:
        msg = (
            f"--resume: there is no run of this model on this data in {folder}. Start one without --resume, or give "
            "the --default_root_dir, --model and --data of the run."
        )
        raise MedicalError(msg)
    last = max(versions, key=lambda each: int(each.name[1:]))
    found = [(path, read_checkpoint(path)) for path in sorted(last.rglob("*.ckpt"))]
    # `retarget` writes its checkpoints, of weights alone, beside those of the training.
    found = [each for each in found if {"optimizer_states", "loops"} <= each[1].keys()]
    if not found:
        msg = (
            f"--resume: the last run, in {last}, has no checkpoint to go on from: it stopped before the end of its "
            "first epoch. Start anew without --resume."
        )
        raise MedicalError(msg)
    checkpoint, content = max(found, key=lambda each: int(each[1].get("global_step", 0)))
    return LastRun(last, checkpoint, content)


def _epochs(content: Mapping[str, Any]) -> int:
    """Epochs that a training has completed, as Lightning counts them when it looks whether to go on."""
    return int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
