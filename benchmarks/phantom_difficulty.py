"""Measure how hard the phantom is, and what can be told without looking at lesions.

For every difficulty: image AUROC of shortcuts (nearest training thumbnail; one number per image), and of anomalib's
PatchCore, which is none of our models. Shortcut AUROCs are given as max(a, 1 - a).

    python benchmarks/phantom_difficulty.py --teacher_weights resnet18.safetensors
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from anomalib.engine import Engine
from anomalib.models import Patchcore
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch.nn.functional import interpolate

from anomalib_medical.data import MedicalDataset, Phantom

DIFFICULTIES = ("easy", "medium", "hard")


def load(data: MedicalDataset) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all images (N, H, W) and labels (N,)."""
    items = [data[index] for index in range(len(data))]
    return np.stack([item.image[0].numpy() for item in items]), np.array([int(item.gt_label) for item in items])


def thumbnails(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shrink to 32x32 and flatten: (N, 1024)."""
    small = interpolate(torch.from_numpy(images)[:, None], size=(32, 32), mode="bilinear", antialias=True)
    return small.flatten(1).numpy()


def shortcuts(datamodule: Phantom) -> dict[str, float]:
    """Image AUROC of everything that needs no model."""
    train, _ = load(datamodule.train_data)
    test, labels = load(datamodule.test_data)
    small = thumbnails(train)
    distances = [float(np.linalg.norm(small - image, axis=1).min()) for image in thumbnails(test)]
    features = {
        "mean": test.mean(axis=(1, 2)),
        "std": test.std(axis=(1, 2)),
        "max": test.max(axis=(1, 2)),
        "99th percentile": np.percentile(test, 99, axis=(1, 2)),
        "sharpness": np.abs(np.diff(test, axis=2)).mean(axis=(1, 2)),
        "file size": [Path(path).stat().st_size for path in datamodule.test_data.samples.image_path],
    }
    result = {"nearest thumbnail": float(roc_auc_score(labels, distances))}
    for name, values in features.items():
        auroc = float(roc_auc_score(labels, values))
        result[name] = max(auroc, 1 - auroc)
    return result


def patchcore(datamodule: Phantom, teacher_weights: Path, image_size: int, coreset: float) -> dict[str, float]:
    """Train and test anomalib's PatchCore on the same images."""
    torch.manual_seed(0)
    model = Patchcore(
        backbone="resnet18",
        layers=("layer2", "layer3"),
        pre_trained=False,
        coreset_sampling_ratio=coreset,
        pre_processor=Patchcore.configure_pre_processor(image_size=(image_size, image_size)),
        visualizer=False,
    )
    weights = {name: value.float() for name, value in load_file(teacher_weights).items()}
    missing, _ = model.model.feature_extractor.feature_extractor.load_state_dict(weights, strict=False)
    if missing:
        msg = f"{teacher_weights} lacks {len(missing)} of the network's tensors, such as {missing[0]}."
        raise ValueError(msg)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
        engine.fit(model, datamodule=datamodule)
        metrics = engine.test(model, datamodule=datamodule)[0]
    return {"PatchCore image": metrics["image_AUROC"], "PatchCore pixel": metrics["pixel_AUROC"]}


def main() -> None:
    """Measure, print the table, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher_weights", type=Path, required=True, help="resnet18 in timm's names, safetensors")
    parser.add_argument("--root", type=Path, default=Path("datasets/Phantom"), help="where phantoms are written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="phantoms of these seeds")
    parser.add_argument("--model_size", type=int, default=128, help="input size of PatchCore")
    parser.add_argument("--coreset", type=float, default=0.02, help="share of patches that PatchCore keeps")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "phantom_difficulty.md")
    args = parser.parse_args()

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    columns: dict[str, dict[str, float]] = {}
    for seed in args.seeds:
        for difficulty in DIFFICULTIES:
            datamodule = Phantom(root=args.root, difficulty=difficulty, seed=seed, num_workers=0)
            datamodule.prepare_data()
            datamodule.setup()
            column = shortcuts(datamodule)
            column |= patchcore(datamodule, args.teacher_weights, args.model_size, args.coreset)
            columns[f"{difficulty} (seed {seed})"] = column

    rows = [["image AUROC (PatchCore pixel: pixel AUROC)", *columns]]
    rows += [[name, *(f"{column[name]:.3f}" for column in columns.values())] for name in next(iter(columns.values()))]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
    print(table)
    # The file's place differs between machines; its name is enough.
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/phantom_difficulty.py", *words])
    text = (
        f"# Difficulty of the phantom\n\n    {command}\n\n"
        "200 training images, 50 normal and 50 abnormal test images of 256x256 pixels each; PatchCore: resnet18, "
        f"layer2 and layer3, input {args.model_size}, coreset {args.coreset:g}. Shortcuts as max(a, 1 - a).\n\n"
        f"{table}\n"
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
