"""The subcommand `retarget`: a trained few-shot model for a new task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from jsonargparse import ArgumentParser

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import counted

_OF_THE_RUN = frozenset({"callbacks", "loops", "lr_schedulers", "optimizer_states"})


DESCRIPTION = (
    "Give a trained D24fad the support of a new task and a threshold for it, without training: a new checkpoint."
)


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
    parser.add_argument(
        "--window",
        type=str | tuple[float, float] | None,
        help="The window for DICOM and NIfTI files: bone, brain, lung, soft_tissue, or center and width.",
    )


def run(arguments: Mapping[str, Any]) -> int:
    """Write the new checkpoint.

    Returns:
        0.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or the new one not be written.
        MedicalError: If it is none of D24fad, or the new one is there already.
        D24fadError: If the images cannot be used.
    """
    from anomalib_medical.data.privacy import PatientHasher
    from anomalib_medical.models import D24fad
    from anomalib_medical.models.components.checkpoints import write_checkpoint

    source, target = arguments["ckpt_path"], arguments["output"]
    _refuse_overwriting(target)
    checkpoint = _read_checkpoint(source)
    model = cast(
        "D24fad",
        D24fad.load_from_checkpoint(
            source,
            map_location="cpu",
            support_dir=str(arguments["support_dir"]),
            support_shots=arguments["shots"],
            support_selection=arguments["selection"],
            support_window=arguments["window"],
        ),
    )
    normals, count = arguments["normals_dir"], len(model.support_images)
    how = "no threshold, scores are raw: give --normals_dir (one support image has no others to be compared with)"
    if model.post_processor is None:
        how = "no threshold: the model was trained without a post-processor"
    elif normals is not None or count > 1:
        model.recalibrate(normals)
        source_of_normals = f"the images in {normals}" if normals else "each support image against the others"
        how = f"image threshold {model.post_processor.image_threshold:.6g}, from {source_of_normals}"
    target.parent.mkdir(parents=True, exist_ok=True)
    model.hash_support_names(PatientHasher(target.parent))
    # The state of the training run holds the old threshold too, and belongs to other data.
    checkpoint = {key: value for key, value in checkpoint.items() if key not in _OF_THE_RUN}
    checkpoint["state_dict"] = model.state_dict()
    model.on_save_checkpoint(checkpoint)
    write_checkpoint(checkpoint, target)
    print(f"Wrote {target}: {counted(count, 'support image')}, {how}.")
    return 0


def _refuse_overwriting(target: Path) -> None:
    if target.exists():
        msg = f"{target} is there already, and nothing is overwritten: choose another --output."
        raise MedicalError(msg)


def _read_checkpoint(source: Path) -> dict[str, Any]:
    from anomalib_medical.models.components.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(source)
    if "support_record" not in checkpoint:
        msg = f"{source} is no checkpoint of D24fad: only a few-shot model can be given a new support."
        raise MedicalError(msg)
    return checkpoint
