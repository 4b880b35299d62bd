"""The subcommand `quickstart`: train, test, export, run the export, and say where everything is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from anomalib_medical.cli.configs import configs_dir
from anomalib_medical.cli.parser import PROGRAM
from anomalib_medical.errors import MedicalError, shell_argument
from anomalib_medical.io import counted, sha256

if TYPE_CHECKING:
    from anomalib_medical.callbacks.predictions_file import Prediction
    from anomalib_medical.cli.anomalib_commands import MedicalCLI

DESCRIPTION = "Train, test and export a small model on generated images, in a few minutes without GPU or network."
STAMP = "quickstart.json"
CHECKED_IMAGES = 8
TOLERANCE = 1e-4


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--output", type=Path, default=Path("results/quickstart"), help="Folder for the results.")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="Train again, into a new version folder, even if a finished run is there.",
    )


def run(arguments: Mapping[str, Any]) -> int:
    """Run the quickstart."""
    quickstart(arguments["output"], fresh=arguments["fresh"])
    return 0


@dataclass
class FinishedRun:
    """What a complete run left behind; paths are relative to the output folder."""

    made_by: str  # versions and configuration that the run depends on
    run: str  # its folder
    predictions: str  # scores of the test images
    model: str  # of OpenVINO
    pixel_auroc: float | None  # of the test images, None if they have no masks


def quickstart(output: Path, *, fresh: bool = False) -> None:
    """Run the quickstart, or only the check of its exported model if `output` holds a finished run and not `fresh`.

    What is in the folder stays: a new run goes to a new version folder.
    """
    from anomalib_medical.callbacks.predictions_file import read_predictions

    config = configs_dir() / "quickstart.yaml"
    made_by = f"anomalib-medical {version('anomalib-medical')}, anomalib {version('anomalib')}, config {sha256(config)}"
    finished = None if fresh else _load(output, made_by)
    if finished:
        print(f"Found a finished run in {output}; --fresh trains again.")
    else:
        finished = _train_and_export(config, output, made_by)
    predictions = read_predictions(output / finished.predictions)
    difference, checked = _check_export(output / finished.model, predictions)
    (output / STAMP).write_text(json.dumps(asdict(finished), indent=2), encoding="utf-8")
    _summarise(output, finished, predictions, difference, checked)


def _load(output: Path, made_by: str) -> FinishedRun | None:
    """The finished run in `output`, if it is complete and was made by the same versions and configuration."""
    try:
        run = FinishedRun(**json.loads((output / STAMP).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    complete = all((output / path).exists() for path in (run.predictions, run.model))
    return run if complete and run.made_by == made_by else None


def _train_and_export(config: Path, output: Path, made_by: str) -> FinishedRun:
    from anomalib_medical.callbacks import PredictionsCSV

    trained = _command("train", "--config", str(config), "--default_root_dir", str(output))
    trainer: Any = trained.engine.trainer
    root, run = output.resolve(), Path(trainer.default_root_dir).resolve()
    predictions = next(each.path for each in trainer.callbacks if isinstance(each, PredictionsCSV) and each.path)
    pixel_auroc = trainer.callback_metrics.get("pixel_AUROC")
    checkpoint = run / "weights" / "lightning" / "model.ckpt"
    export = ["export", "--config", str(config), "--export_type", "openvino"]
    _command(*export, "--ckpt_path", str(checkpoint), "--export_root", str(run))
    return FinishedRun(
        made_by=made_by,
        run=str(run.relative_to(root)),
        predictions=str(predictions.resolve().relative_to(root)),
        model=str(run.relative_to(root) / "weights" / "openvino" / "model.xml"),
        pixel_auroc=None if pixel_auroc is None else float(pixel_auroc),
    )


def _command(*arguments: str) -> MedicalCLI:
    """Run one of anomalib's commands in this process (a new one would spend seconds on imports)."""
    from anomalib_medical.cli.anomalib_commands import MedicalCLI

    print(f"\n$ {shlex.join([PROGRAM, *arguments])}", flush=True)
    return MedicalCLI(arguments)


def _check_export(model: Path, predictions: list[Prediction]) -> tuple[float, int]:
    """Compare scores of the exported model with those of the test: the largest difference, of how many images."""
    from anomalib_medical.data.images import read_image
    from anomalib_medical.edge.predictor import GraphScorer

    print(f"\nRunning {model} with OpenVINO ...")
    scorer = GraphScorer(model)
    picked = predictions[:: max(1, len(predictions) // CHECKED_IMAGES)][:CHECKED_IMAGES]
    scores = [scorer.score(read_image(prediction.path).numpy())[0] for prediction in picked]
    worst = max(
        (abs(score - float(prediction.score)) for score, prediction in zip(scores, picked, strict=True)), default=0.0
    )
    if not worst <= TOLERANCE:
        msg = f"The exported model {model} gives other scores than the test: they differ by up to {worst:.2g}."
        raise MedicalError(msg)
    return worst, len(picked)


def _summarise(
    output: Path, finished: FinishedRun, predictions: list[Prediction], difference: float, checked: int
) -> None:
    from anomalib_medical.cli.ending import measured, table

    run = output / finished.run
    pixel = "unknown (no masks)" if finished.pixel_auroc is None else f"{finished.pixel_auroc:.3f}"
    lines = {
        "Image AUROC": measured(predictions),
        "Pixel AUROC": pixel,
        "OpenVINO": f"same scores on {counted(checked, 'image')} (largest difference {difference:.1e})",
        "Scores": output / finished.predictions,
        "Heatmaps": run / "images",
        "OpenVINO model": output / finished.model,
        "A picture": _picture(run / "images", predictions) or "none",
    }
    print(f"\n{table(lines)}\n\nNext:\n" + "\n".join(f"  {command}" for command in _next(run)))


def _picture(heatmaps: Path, predictions: Sequence[Prediction]) -> Path | None:
    """The heatmap of the abnormal image that scores highest."""
    shown = sorted((row for row in predictions if row.gt_label == "abnormal"), key=lambda row: -float(row.raw_score))
    for row in shown:
        path = Path(row.path)
        found = (each for each in heatmaps.rglob(f"{path.stem}.*") if each.parent.name == path.parent.name)
        if (picture := next(found, None)) is not None:
            return picture
    return None


def _next(run: Path) -> list[str]:
    """A bundle of the model for a device; a look for leaks in images of one's own, and the same training with them."""
    checkpoint = run / "weights" / "lightning" / "model.ckpt"
    bundle = [shell_argument("ckpt_path", checkpoint), shell_argument("output", run / "bundle")]
    yours = "--data MedicalFolder --data.root YOUR_IMAGES"
    return [
        " ".join([PROGRAM, "bundle", *bundle]),
        f"{PROGRAM} audit {yours}",
        f"{PROGRAM} train {shell_argument('config', configs_dir() / 'quickstart.yaml')} {yours}",
    ]
