"""All image models that anomalib lists, and ours, against `MedicalFolder`, the benchmark and bundles.

Each is trained for two steps (or makes its memory bank) on a few phantoms by one benchmark, a process a model, then
bundled by the command of the report; the bundle scores the test images, and its raw scores must be the engine's. It
shows that the machinery works, nothing of how well a model detects: networks are small and their weights random.

    python benchmarks/rivals.py --output results/rivals

The same command goes on where it stopped. Images that training needs besides (ImageNet's, textures) and weights that
models fetch themselves (EfficientAD's, DSR's, AnomalyVFM's) are replaced by noise of the same form, in a cache folder
below the output.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import append_record, read_records

_CAP = 1e-4  # of the raw score, or of 1: as the bundle's own self-test
_SMALL_VIT = {"encoder_name": "vit_small_patch14_reg4_dinov2"}
# What differs from the plan, so that a model fits two cores and minutes: backbone, image size, steps.
SETTINGS: dict[str, dict[str, Any]] = {
    "AnomalyDINO": {"image_size": 126, "init_args": {"encoder_name": "vit_small_patch14_dinov2"}},
    "Cflow": {"trainer": {"max_epochs": 1, "limit_train_batches": 1}},
    "Dfkde": {"init_args": {"n_pca_components": 4}},  # of 18 images
    "Dinomaly": {"image_size": 126, "init_args": _SMALL_VIT},
    "Draem": {"normalize": False, "init_args": {"dtd_dir": "${RIVALS}/textures/noise"}},
    "Dsr": {"normalize": False, "trainer": {"max_epochs": 2, "limit_train_batches": 1}},
    "EfficientAd": {
        "image_size": 256,
        "train_batch_size": 1,
        "normalize": False,
        "init_args": {"imagenet_dir": "${RIVALS}/textures"},
    },
    "FoundAD": {"init_args": {"encoder_name": "dinov2_vit_small_14", "image_size": 126, "pred_emb_dim": 192}},
    "Fre": {"init_args": {"input_dim": 4096}},
    "GeneralAD": {
        "image_size": 126,
        "init_args": {"backbone": "vit_small_patch14_dinov2", "layers": [12], "hidden_dim": 128},
    },
    # With random weights its optimizers cannot be made: anomalib's own fault.
    "Glass": {
        "init_args": {
            "input_shape": [128, 128],
            "backbone": "tf_efficientnet_lite0",
            "pre_trained": True,
            "layers": ["blocks.2", "blocks.4"],
            "pretrain_embed_dim": 256,
            "target_embed_dim": 256,
        }
    },
    "InpFormer": {"image_size": 126, "init_args": _SMALL_VIT},
    "L2BT": {"image_size": 126},
    # Passes over the data for its statistics, the last for the memory bank.
    "MHPatchcore": {"trainer": {}},
    "Patchflow": {"image_size": 256, "init_args": {"backbone": "tf_efficientnet_b5"}},
    "Rad": {"init_args": {"backbone": "vit_small_patch16_dinov3", "layers": [3, 6, 9, 11], "k_image": 3}},
    "SuperADD": {
        "image_size": 160,
        "init_args": {"backbone": "vit_small_patch16_dinov3", "layers": [3, 6, 9, 11], "patch_size": 96},
    },
    "Uflow": {"image_size": 448, "train_batch_size": 2, "init_args": {"backbone": "resnet18"}},
    "UniNet": {"init_args": {"student_backbone": "wide_resnet50_2", "teacher_backbone": "wide_resnet50_2"}},
    "WinClip": {"image_size": 240, "init_args": {"class_name": "image"}},
    "AnomalyVFM": {"image_size": 128, "normalize": False},
    "Ddad": {"image_size": 64, "init_args": {"score": "intra"}},
    "D24fad": {"few_shot": 2},
}
# What no benchmark of images can hold.
OUT_OF_SCOPE = {
    "AiVad": "out of scope: video",
    "Fuvas": "out of scope: video",
    "CFM": "out of scope: pairs of images with point clouds",
    "VlmAd": "out of scope: asks a language model of a service, or of 7 billion parameters; there is nothing to export",
}
_BACKBONES = ("encoder_name", "backbone", "teacher_backbone")
_OWN = ("Csflow", "L2BT", "WinClip")
_COLUMNS = ("model", "with", "trains", "tests", "OpenVINO", "bundle", "largest difference", "minutes")


def main() -> None:
    """Run what is left, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="run folder, cache and bundles; gigabytes")
    parser.add_argument("--models", nargs="+", help="only these; the table is then printed, not written")
    parser.add_argument("--minutes", type=float, default=10.0, help="limit of a job, and of a bundle")
    parser.add_argument("--memory_gib", type=float, default=24.0, help="limit of a job")
    args = parser.parse_args()
    output: Path = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    # For this process and all that it starts. Nothing asks a hub, which would cost a minute of trying each.
    os.environ |= {"RIVALS": str(output), "XDG_CACHE_HOME": str(output / "cache"), "HF_HUB_OFFLINE": "1"}
    os.environ |= {"HF_HOME": str(output / "cache" / "huggingface"), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    from anomalib_medical.benchmark.command import run_plan
    from anomalib_medical.benchmark.run_folder import RunFolder
    from anomalib_medical.errors import MedicalError
    from anomalib_medical.registration import known_models

    names = args.models or sorted(known_models().keys() - OUT_OF_SCOPE.keys() - {"AnomalibModule"}, key=str.lower)
    _write_stand_ins(names, output)
    plan = output / "plan.yaml"
    plan.write_text(yaml.safe_dump(_plan(names, args.minutes, args.memory_gib), sort_keys=False), encoding="utf-8")
    run = RunFolder(output / "run")
    with contextlib.suppress(MedicalError):  # what failed, the jobs' folders say too
        run_plan(plan, run.path, force_new_plan=True)
    records = output / "bundles.jsonl"
    for name in names:
        if name not in {record["model"] for record in read_records(records)}:
            record = _bundle(name, run, args.minutes)
            if record:
                append_record(records, {"model": name} | record)
    bundles = {record["model"]: record for record in read_records(records)}
    found = _table([_row(name, run, bundles.get(name, {})) for name in names])
    print(found)
    if args.models is None:
        _write(found)


def _plan(names: list[str], minutes: float, memory_gib: float) -> dict[str, Any]:
    models = {name: {"class_path": name, "trainer": {"max_steps": 2}} | SETTINGS.get(name, {}) for name in names}
    phantoms = {"root": "${RIVALS}/phantoms", "name": "phantoms", "val_split_ratio": 0.25}
    learnt = {"root": "${RIVALS}/learnt", "image_size": 64, "train_count": 24, "test_normal_count": 6}
    return {
        "name": "rivals",
        "image_size": 128,
        "backbone": "resnet18",
        "train_batch_size": 4,
        "eval_batch_size": 4,
        "threads": 1,
        "latency_repeats": 2,
        "gallery": 0,
        "devices": "cpu",
        "limits": {"train_minutes": minutes / 2, "job_minutes": minutes, "memory_gib": memory_gib},
        "models": models,
        "datasets": {
            "phantoms": {"class_path": "MedicalFolder", "init_args": phantoms},
            # For the few-shot model alone, which learns on other data.
            "learnt": {
                "class_path": "Phantom",
                "init_args": learnt | {"test_abnormal_count": 6},
                "models": {name: {"skip": True} for name in names},
            },
        },
    }


def _row(name: str, run: Any, bundle: dict[str, Any]) -> dict[str, str]:  # noqa: ANN401 - a RunFolder
    """What a model's job and bundle say."""
    job = _job(run, name).read()
    if job is None:
        return {"model": name, "trains": "not run"}
    minutes = {"minutes": f"{(job.status.seconds + bundle.get('seconds', 0)) / 60:.1f}"}
    if job.status.status != "done":
        return {"model": name, "trains": f"{job.status.status.replace('_', ' ')}: {job.status.message}"} | minutes
    spec = job.info.spec
    given = spec["init_args"]
    backbone = next((given[key] for key in _BACKBONES if key in given), "")
    if not backbone and job.info.teacher != "none":
        backbone = "its own network" if name in _OWN else spec["backbone"]
    size = given.get("image_size", spec["image_size"])
    return {
        "model": name,
        "with": ", ".join(each for each in (backbone, f"{size} px") if each),
        "trains": "yes" if job.cost.steps or job.cost.epochs else "has nothing to train",
        "tests": "yes",
        "OpenVINO": job.cost.not_measured.get("latency.openvino", "yes"),
        **bundle,
        **minutes,
    }


def _job(run: Any, name: str) -> Any:  # noqa: ANN401 - a RunFolder and a JobFolder
    return run.job(f"phantoms__{name}__seed0")


def _bundle(name: str, run: Any, minutes: float) -> dict[str, Any]:  # noqa: ANN401 - a RunFolder
    """Make and compare a model's bundle, and drop its weights; {} without weights."""
    from anomalib_medical.benchmark.weights import bundle_command

    folder = _job(run, name)
    job = folder.read()
    command = bundle_command(folder, run.path, job) if job is not None else None
    if command is None:
        return {}
    started = time.monotonic()
    target = run.path / "bundles" / folder.path.name
    shutil.rmtree(target, ignore_errors=True)
    found = _bundled(shlex.split(command)[1:], run, folder, minutes)
    shutil.rmtree(target, ignore_errors=True)
    return found | {"seconds": round(time.monotonic() - started)}


def _bundled(command: list[str], run: Any, folder: Any, minutes: float) -> dict[str, Any]:  # noqa: ANN401 - folders
    """Make the bundle in a process of its own, and compare its scores with the benchmark's."""
    from anomalib_medical.data import MedicalFolder
    from anomalib_medical.data.images import read_image
    from anomalib_medical.edge.predictor import MODEL, GraphScorer

    try:
        made = subprocess.run(
            [sys.executable, "-m", "anomalib_medical.cli", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60 * minutes,
        )
    except subprocess.TimeoutExpired:
        return {"bundle": f"not within {minutes:g} minutes"}
    if made.returncode:
        said = [line for line in made.stderr.splitlines() if line.startswith("error: ")] or made.stderr.splitlines()
        return {"bundle": said[-1].removeprefix("error: ") if said else f"exit code {made.returncode}"}
    data = MedicalFolder(Path(os.environ["RIVALS"]) / "phantoms", num_workers=0)
    data.setup()
    scorer = GraphScorer(run.path / "bundles" / folder.path.name / MODEL)
    ours = np.sort([scorer.score(read_image(path).numpy())[0] for path in data.test_data.samples.image_path])
    # Names are hashed in the run folder: sorted, the scores of both are in one order.
    scores = folder.scores()
    theirs = np.sort(scores[scores.split == "test"].raw_score.to_numpy(float))
    difference = float((np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))).max())
    same = difference <= _CAP
    return {"bundle": "yes" if same else "scores are not the engine's", "largest difference": f"{difference:.1e}"}


def _write_stand_ins(names: list[str], output: Path) -> None:
    """Write the phantoms, and what models would fetch: images, textures, weights."""
    import torch
    from PIL import Image

    from anomalib_medical.data.phantom.files import PhantomSpec, ensure_phantom, read_manifest

    rng = np.random.default_rng(0)
    if not (output / "phantoms").exists():
        folder = ensure_phantom(output / "made", PhantomSpec("easy", 128, train=24, test_normal=6, test_abnormal=6))
        for row in read_manifest(folder):
            normal = row["label"] != "abnormal"
            part = "train/good" if row["split"] == "train" else f"test/{'good' if normal else 'lesion'}"
            copies = {part: row["file"]} | ({"ground_truth/lesion": row["mask"]} if row["mask"] else {})
            for place, file in copies.items():
                target = output / "phantoms" / place / Path(row["file"]).name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(folder, file), target)
    textures = output / "textures" / "noise"
    if not textures.exists():
        textures.mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((256, 256)).save(textures / f"{number}.png")
    cache = output / "cache" / "anomalib" / "pre_trained"
    if "EfficientAd" in names:
        from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork

        weights = SmallPatchDescriptionNetwork(out_channels=384).state_dict()
        _save(torch, weights, cache / "efficientad_pretrained_weights" / "pretrained_teacher_small.pth")
    if "Dsr" in names:
        from anomalib.models.image.dsr.torch_model import DsrModel

        own = DsrModel(0.2).discrete_latent_model.state_dict()
        _save(torch, own, cache / "dsr" / "vq_model_pretrained_128_4096.pckl")
    if "AnomalyVFM" in names:
        _write_anomalyvfm(output / "cache" / "huggingface" / "hub")


def _save(torch: Any, weights: dict[str, Any], path: Path) -> None:  # noqa: ANN401 - the module, imported late
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, path)


def _write_anomalyvfm(hub: Path) -> None:
    """Write random weights where the hub's client looks for those that its constructor downloads."""
    from unittest.mock import patch

    from anomalib.models.image.anomalyvfm import torch_model
    from safetensors.torch import save_file

    asked: dict[str, str] = {}
    taken: dict[str, Any] = {}

    class Built(Exception):  # noqa: N818 - no error
        """The network is complete but for its weights."""

    def take(**given: str) -> str:
        asked.update(given)
        return ""

    def stop(model: torch_model.AnomalyVFMModel, _: object) -> None:
        taken.update(model.state_dict())
        raise Built

    with (
        patch.object(torch_model, "hf_hub_download", take),
        patch.object(torch_model, "load_file", lambda _: {}),
        patch.object(torch_model.AnomalyVFMModel, "load_state_dict", stop),
        contextlib.suppress(Built),
    ):
        torch_model.AnomalyVFMModel()
    snapshot = hub / f"models--{asked['repo_id'].replace('/', '--')}" / "snapshots" / asked["revision"]
    snapshot.mkdir(parents=True, exist_ok=True)
    save_file({key: value.clone().contiguous() for key, value in taken.items()}, snapshot / asked["filename"])


def _table(rows: list[dict[str, str]]) -> str:
    """The rows as a table, the models out of scope last."""
    rows = rows + [{"model": name, "trains": why} for name, why in OUT_OF_SCOPE.items()]
    cells = [list(_COLUMNS), ["---"] * len(_COLUMNS)]
    cells += [[" ".join(str(row.get(each, "")).replace("|", "\\|").split())[:200] for each in _COLUMNS] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _write(found: str) -> None:
    path = Path(__file__).parent / "results" / "rivals.md"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Rivals\n\n"
    head = text.partition("\n| model |")[0].rstrip()
    path.write_text(f"{head}\n\n{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
