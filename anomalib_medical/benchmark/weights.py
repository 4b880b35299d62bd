"""The last weights of a training, kept so that it can be tested again and bundled."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer

from anomalib_medical.benchmark.plan import Plan, expand
from anomalib_medical.benchmark.records import Job, Weights
from anomalib_medical.benchmark.run_folder import JobFolder
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.io import Slicing, sha256
from anomalib_medical.models.components.checkpoints import class_name

_NAME = "model.ckpt"


def keep_weights(
    plan: Plan, folder: JobFolder, trainer: Trainer, model: AnomalibModule, data: MedicalDataModule
) -> Weights | None:
    """Write a checkpoint without the optimizer's state, whole or not at all, where the plan wants one."""
    if not plan.keep_weights:
        return None
    target = folder.path
    if plan.weights_folder is not None:
        target = Path(expand(plan.weights_folder)).absolute()
    target.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that renaming is one step.
    with tempfile.TemporaryDirectory(dir=target, prefix=f".{folder.path.name}-") as temporary:
        written = Path(temporary) / _NAME
        trainer.save_checkpoint(written, weights_only=True)
        # Beside others' weights, of runs with the same names too: nothing is overwritten but by the same.
        name = _NAME if target == folder.path else f"{folder.path.name}-{sha256(written)[:12]}.ckpt"
        written.replace(target / name)
    return Weights(
        file=name if target == folder.path else str(target / name),
        model=class_name(type(model)),
        size=(target / name).stat().st_size,
        reading=_reading(data),
    )


def bundle_command(folder: JobFolder, run: Path, job: Job) -> str | None:
    """The command that makes a bundle of a job's weights; None if they were not kept, or are gone.

    ``run`` is the run folder as the command is to name it; ``Path()`` for a command to be given in it.
    """
    weights, info = job.weights, job.info
    if weights is None or info is None or not (folder.path / weights.file).is_file():
        return None
    words = ["anomalib-medical", "bundle", "--ckpt_path", run / "jobs" / folder.path.name / weights.file]
    words += ["--model", weights.model, "--output", run / "bundles" / folder.path.name, *weights.reading]
    words += ["--trained_on", f"{info.dataset}, seed {info.seed}, in a benchmark ({info.spec['protocol']} protocol)"]
    return shlex.join(map(str, words))


def _reading(data: MedicalDataModule) -> list[str]:
    """What a bundle must be told of how files were read."""
    slicing, usual = getattr(data, "slicing", Slicing()), Slicing()
    words = [] if data.window is None else ["--window", f"[{data.window.center:g}, {data.window.width:g}]"]
    if slicing.axis != usual.axis:
        words += ["--axis", slicing.axis]
    if tuple(slicing.slice_range) != usual.slice_range:
        words += ["--slice_range", f"[{slicing.slice_range[0]:g}, {slicing.slice_range[1]:g}]"]
    return words
