"""The subcommand `retarget`: a trained few-shot model for a new task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from anomalib_medical.cli.reading_options import add_reading_options, window_of
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import counted

DESCRIPTION = (
    "Give a trained D24fad the support of a new task and a threshold for it, without training: a new checkpoint."
)
_OF_THE_RUN = frozenset({"callbacks", "loops", "lr_schedulers", "optimizer_states"})


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--ckpt_path", type=Path, required=True, help="Checkpoint of a trained D24fad.")
    parser.add_argument(
        "--support_dir", type=Path, required=True, help="Folder of a few normal images of the new task."
    )
    parser.add_argument(
        "--normals_dir",
        type=Path | None,
        help="Folder of other normal images of the new task, to take the threshold from: 19 or more for 95%% "
        "specificity. Without it each support image is compared with the others.",
    )
    parser.add_argument("--output", type=Path, required=True, help="The new checkpoint; nothing is overwritten.")
    parser.add_argument("--shots", type=int | None, help="How many images of --support_dir to take; all if not given.")
    parser.add_argument(
        "--selection", type=Literal["random", "diverse"], default="random", help="Which of them, see D24fad."
    )
    add_reading_options(parser, "For the images", volumes=False)


def run(arguments: Mapping[str, Any]) -> int:
    """Write the new checkpoint, and return 0."""
    from anomalib_medical.data.few_shot.support import read_normals
    from anomalib_medical.data.images import read_support
    from anomalib_medical.models import D24fad
    from anomalib_medical.models.components.checkpoints import read_checkpoint, write_checkpoint
    from anomalib_medical.models.d24fad.support import chooser
    from anomalib_medical.post_processing import raw_threshold

    source, target, normals = arguments["ckpt_path"], arguments["output"], arguments["normals_dir"]
    if target.exists():
        msg = f"{target} is there already, and nothing is overwritten: choose another --output."
        raise MedicalError(msg)
    checkpoint = read_checkpoint(source)
    if "support_record" not in checkpoint:
        msg = f"{source} is no checkpoint of D24fad: only a few-shot model can be given a new support."
        raise MedicalError(msg)
    model: Any = D24fad.load_from_checkpoint(source, map_location="cpu", support_selection=arguments["selection"])
    folder, shots, reading = arguments["support_dir"], arguments["shots"], dict(checkpoint.get("reading", {}))
    if arguments["window"] is not None:
        # Another organ may need another one.
        reading["window"] = arguments["window"]
    window = window_of({"window": None} | reading)
    support = read_support(folder, window, shots, model.seed or 0, chooser(model), target.parent)
    model.set_support(*support)
    count = len(model.model.support)
    how = "no threshold, scores are raw: give --normals_dir (one support image has no others to be compared with)"
    if model.post_processor is None:
        how = "no threshold: the model was trained without a post-processor"
    elif normals is not None or count > 1:
        model.recalibrate(None if normals is None else read_normals(normals, model.support_record, window))
        source_of_normals = f"the images in {normals}" if normals else "each support image against the others"
        how = f"image threshold {raw_threshold(model.post_processor):.6g}, from {source_of_normals}"
    # The state of the training run holds the old threshold too, and belongs to other data.
    checkpoint = {key: value for key, value in checkpoint.items() if key not in _OF_THE_RUN}
    checkpoint |= {"state_dict": model.state_dict(), "reading": reading}
    model.on_save_checkpoint(checkpoint)
    write_checkpoint(checkpoint, target)
    print(f"Wrote {target}: {counted(count, 'support image')}, {how}.")
    return 0
