"""How a run ends: what was measured, where everything is, and what to type next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.callbacks.predictions_file import Prediction, read_predictions
from anomalib_medical.cli.parser import PROGRAM
from anomalib_medical.cli.reading_options import READING, chosen
from anomalib_medical.errors import shell_argument
from anomalib_medical.io import counted
from anomalib_medical.metrics import UndefinedMetricError, image_auroc
from anomalib_medical.models.components.checkpoints import read_checkpoint
from anomalib_medical.post_processing.groups import GroupedScore, Unit, wholes_of

if TYPE_CHECKING:
    from anomalib_medical.cli.anomalib_commands import MedicalCLI

_BESIDE: dict[Unit, str] = {"patients": "Patient AUROC", "series": "Series AUROC"}


def table(lines: Mapping[str, object]) -> str:
    """Names and values below each other."""
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())


def measured(rows: Sequence[Prediction]) -> str:
    """The image AUROC with its interval and the counts behind it, or why there is none."""
    known = [row for row in rows if row.gt_label and math.isfinite(float(row.raw_score))]
    abnormal = [row.gt_label == "abnormal" for row in known]
    patients = _numbered([row.patient for row in known])
    named = len(set(filter(None, patients)))
    counts = f"{counted(len(known), 'image')}: {abnormal.count(False)} normal, {abnormal.count(True)} abnormal"
    if named:
        counts += f", of {counted(named, 'patient')}"
    if lost := len(rows) - len(known):
        counts += f"; {lost} without a score or a label"
    try:
        # The raw scores: anomalib's own post-processor clamps normalised ones to [0, 1], where they tie at the ends.
        scores = [float(row.raw_score) for row in known]
        return f"{image_auroc(scores, abnormal, patients=patients if named else None)} ({counts})"
    except (UndefinedMetricError, ValueError) as error:
        return f"none ({counts}): {error}"


def _numbered(patients: Sequence[str]) -> list[str | None]:
    """Name patients by number: hashes are salted anew in each run, and the order of the names decides what is drawn."""
    numbers = {patient: f"{number:09}" for number, patient in enumerate(dict.fromkeys(patients))}
    return [numbers[patient] if patient else None for patient in patients]


def measured_beside(rows: Sequence[Prediction], top: int = 1) -> dict[str, str]:
    """The AUROC of patients and of series, where these are no single images and both classes are there, and counts."""
    images = [
        GroupedScore(row.series, row.patient, float(row.raw_score), row.gt_label == "abnormal")
        for row in rows
        if row.gt_label and math.isfinite(float(row.raw_score))
    ]
    found = {}
    for unit, groups in wholes_of(images, top).items():
        abnormal = [group.abnormal for group in groups]
        named = all(group.patient for group in groups)
        patients = _numbered([group.patient for group in groups]) if named else None
        with suppress(UndefinedMetricError):
            value = image_auroc([group.score for group in groups], abnormal, patients=patients)
            counts = f"{abnormal.count(False)} normal, {abnormal.count(True)} with an abnormal image"
            found[_BESIDE[unit]] = f"{value} ({counts})"
    return found


def ending(cli: MedicalCLI) -> str:
    """The last lines of a training, ``test``, ``predict`` and ``export``; empty for other commands and processes."""
    if cli.subcommand == "export":
        return table({"Exported": _shown(cli.exported)}) if cli.exported else ""
    if cli.subcommand not in {"train", "fit", "test", "predict"}:
        return ""
    trainer: Any = cli.engine.trainer
    if not trainer.is_global_zero:
        return ""
    lines: dict[str, object] = {}
    writer = next((each for each in trainer.callbacks if isinstance(each, PredictionsCSV)), None)
    if writer is not None and writer.path is not None and cli.subcommand != "fit":
        if cli.subcommand != "predict":
            rows, top = read_predictions(writer.path), getattr(cli.model.post_processor, "series_top", 1)
            lines |= {"Image AUROC": measured(rows), **measured_beside(rows, top)}
        lines["Scores"] = _shown(writer.path)
        if writer.heatmaps is not None and writer.heatmaps.exists():
            lines["Heatmaps"] = _shown(writer.heatmaps)
    checkpoint = _checkpoint(cli, trainer)
    if checkpoint is not None:
        if cli.subcommand != "predict":
            lines["Checkpoint"] = checkpoint
        lines["Next"] = _next(cli, Path(trainer.default_root_dir), checkpoint)
    return table({name: value for name, value in lines.items() if value})


def _checkpoint(cli: MedicalCLI, trainer: Any) -> Path | None:  # noqa: ANN401 - Lightning's
    if cli.subcommand in {"train", "fit"}:
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    else:
        path = cli.config[cli.subcommand].ckpt_path
    return _shown(Path(path)) if path and Path(path).is_file() else None


def _next(cli: MedicalCLI, run: Path, checkpoint: Path) -> str:
    """What can be typed next: the test after a fit, and a bundle of what was tested."""
    config = _shown(run / "config.yaml")
    if cli.subcommand == "fit":
        words = ["test", shell_argument("config", config), shell_argument("ckpt_path", checkpoint)]
        return " ".join([PROGRAM, *words]) if config.is_file() else ""
    support = getattr(cli.model.model, "support", None)
    if support is not None and len(support) == 0:
        target = checkpoint.with_name("new_task.ckpt")
        words = ["retarget", shell_argument("ckpt_path", checkpoint), "--support_dir NORMAL_IMAGES"]
        return " ".join([PROGRAM, *words, shell_argument("output", target)])
    words = ["bundle", shell_argument("ckpt_path", checkpoint), shell_argument("output", _free(run / "bundle"))]
    content = read_checkpoint(checkpoint)
    if "model_class" not in content:
        words.append(shell_argument("model", type(cli.model).__name__))
    return " ".join([PROGRAM, *words, *_reading(cli, content.get("reading", {}))])


def _reading(cli: MedicalCLI, known: Mapping[str, Any]) -> list[str]:
    """How the images were read, which a bundle is to do too, as far as the checkpoint does not know it."""
    options = cli.config[cli.subcommand]
    data = options.get("data")
    given = data.get("init_args", {}) if hasattr(data, "init_args") else options
    usual = READING | chosen(known)
    return [shell_argument(name, value) for name, value in chosen(given).items() if value != usual[name]]


def _free(path: Path) -> Path:
    """The first of ``bundle``, ``bundle_1``, ... that is not there."""
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return _shown(free)


def _shown(path: Path) -> Path:
    """Below the working directory, where it is shorter and as good."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
