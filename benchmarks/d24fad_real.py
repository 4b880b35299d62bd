"""D2-4FAD on a task it has not learned from, against models fitted on the same few normal images.

    python benchmarks/d24fad_real.py score --target brain_flair --ckpt_path <checkpoint>
    python benchmarks/d24fad_real.py ablation --target brain_flair --variants full=<checkpoint> mean=<checkpoint>
    python benchmarks/d24fad_real.py table

`score` draws supports of K normal images of different patients and adds a line for every draw to the results: the image
AUROC of D2-4FAD, of anomalib's PatchCore (without a coreset) and PaDiM fitted on the same K images with the same
backbone, teacher and size, and of the nearest 32x32 thumbnail among them. What is there already is not run again.
`blurred` is D2-4FAD with the blur across the batch that the released code does: Gaussian, sigma 4, over batches of 16
maps in class order, without the last incomplete one; `per_image` is ours on the same images.

`ablation` compares checkpoints, each with the same supports, and draws the scores of one of them. ANOMALIB_MEDICAL_DATA
and ANOMALIB_MEDICAL_TEACHER name the data and the teacher.
"""

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anomalib.models import Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from common import SETS, append_record, data_set, normals_of, read_records
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_medical import D24fad
from anomalib_medical.data.few_shot.support import draw_support
from anomalib_medical.data.images import read_image
from anomalib_medical.metrics import image_auroc
from anomalib_medical.models.components import cosine_distance_maps
from anomalib_medical.models.components.weights import load_backbone

RESULTS = Path(__file__).resolve().parent / "results"
SHOTS = (2, 4, 8)
BATCH = 16
METHODS = ("d24fad", "patchcore", "padim", "thumbnail", "blurred", "per_image")
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A data set, with its test images as all models see them.

    Attributes:
        pool: Normal images to draw supports from, of different patients.
        paths: Test images, class by class.
        labels: Their labels, True for abnormal.
        patients: Their patients.
        images: Resized and normalised ``(N, 3, H, W)``.
    """

    pool: pd.DataFrame
    paths: list[str]
    labels: npt.NDArray[np.bool_]
    patients: list[str]
    images: torch.Tensor

    @classmethod
    def read(cls, name: str, model: D24fad) -> "Target":
        """Read a data set with the model's pre-processor, which does what those of the others do."""
        data = data_set(name)
        test = data.test_data.samples.sort_values(["label_index", "image_path"])
        return cls(
            pool=normals_of(data),
            paths=list(test.image_path),
            labels=test.label_index.to_numpy().astype(bool),
            patients=list(test.patient_id),
            images=prepare(model, test.image_path),
        )


def prepare(model: D24fad, paths: Iterable[str]) -> torch.Tensor:
    """Read images, resize and normalise them."""
    return torch.cat([model.pre_processor(read_image(path)[None]) for path in paths])


def in_batches(score: Any, images: torch.Tensor) -> Any:  # noqa: ANN401 - a model's call
    """Call a model on batches and join the answers."""
    return torch.cat([score(batch) for batch in images.split(BATCH)])


@torch.no_grad()
def d24fad_maps(model: D24fad, images: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Anomaly maps before the blur ``(N, 1, H, W)``."""
    network = model.model
    encoded = network.encode_support(support)

    def score(batch: torch.Tensor) -> torch.Tensor:
        _, student = network.encode(batch)
        size = (batch.shape[-2], batch.shape[-1])
        return cosine_distance_maps(student, network.weigh(student, encoded), size).sum(dim=1, keepdim=True)

    return in_batches(score, images)  # type: ignore[no-any-return]


@torch.no_grad()
def fitted(name: str, backbone: str, side: int, weights: Path | None, images: torch.Tensor) -> Any:  # noqa: ANN401
    """Fit one of anomalib's models and return what scores a batch."""
    steps = [Resize((side, side), antialias=False), Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])]
    arguments = {"backbone": backbone, "pre_trained": False, "pre_processor": PreProcessor(Compose(steps))}
    arguments |= {"post_processor": False, "evaluator": False, "visualizer": False}
    if name == "patchcore":
        model: Any = Patchcore(layers=["layer2", "layer3"], coreset_sampling_ratio=1.0, **arguments)
    else:
        model = Padim(layers=["layer1", "layer2", "layer3"], **arguments)
    if weights is not None:
        load_backbone(model.model.feature_extractor.feature_extractor, weights, backbone)
    model.model.train()
    for batch in images.split(BATCH):
        model.model(batch)
    model.fit()
    model.model.eval()
    return lambda batch: model.model(batch).pred_score.reshape(-1)


def nearest_thumbnail(train: list[str], test: list[str]) -> Scores:
    """Distance to the nearest training image at 32x32 grey pixels."""

    def thumbnails(paths: list[str]) -> Scores:
        images = [cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype(np.float64) / 255 for path in paths]
        return np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in images])

    normal = thumbnails(train)
    return np.stack([np.linalg.norm(normal - thumbnail, axis=1).min() for thumbnail in thumbnails(test)])


def released_blur(maps: torch.Tensor) -> Scores:
    """Image scores with the released code's blur over batch, height and width; the last incomplete batch has none."""
    whole = maps[: len(maps) // BATCH * BATCH, 0].numpy().reshape(-1, BATCH, *maps.shape[-2:])
    return np.concatenate([gaussian_filter(batch, sigma=4).max(axis=(1, 2)) for batch in whole]).astype(np.float64)


@torch.no_grad()
def score(arguments: argparse.Namespace) -> None:
    """Score supports that have not been scored."""
    model = D24fad.load_from_checkpoint(arguments.ckpt_path, map_location="cpu").eval()
    height = model.hparams["image_size"]
    side = height if isinstance(height, int) else height[0]
    options = (model.hparams["backbone"], side, arguments.teacher_weights)
    target = Target.read(arguments.target, model)
    known = {(r["target"], r["shots"], r["draw"], r["method"]) for r in read_records(arguments.out)}

    def add(method: str, values: Scores, shots: int, draw: int) -> None:
        labels, patients = target.labels[: len(values)], target.patients[: len(values)]
        found = image_auroc(values, labels, patients)
        record = {"target": arguments.target, "method": method, "shots": shots, "draw": draw, "n": len(values)}
        record |= {"auroc": found.value, "low": found.low, "high": found.high, "image_size": side}
        append_record(arguments.out, record)
        print(f"{arguments.target} {method} K={shots} draw {draw}: {found}", flush=True)

    for shots in SHOTS:
        for draw in range(arguments.draws):
            new = {m for m in METHODS if (arguments.target, shots, draw, m) not in known}
            if not new:
                continue
            paths = list(draw_support(target.pool, shots, draw).image_path)
            support = prepare(model, paths)
            maps = d24fad_maps(model, target.images, support)
            values = model.model.blur(maps).amax(dim=(1, 2, 3)).double().numpy()
            blurred = released_blur(maps)
            found = {"d24fad": values, "blurred": blurred, "per_image": values[: len(blurred)]}
            for name in ("patchcore", "padim"):
                torch.manual_seed(draw)
                found[name] = in_batches(fitted(name, *options, support), target.images).double().numpy()
            found["thumbnail"] = nearest_thumbnail(paths, target.paths)
            for name in METHODS:
                if name in new:
                    add(name, found[name], shots, draw)


TITLES = {
    "d24fad": "D2-4FAD",
    "patchcore": "PatchCore",
    "padim": "PaDiM",
    "thumbnail": "nearest thumbnail",
    "per_image": "D2-4FAD, whole batches only",
    "blurred": "the same, blurred across the batch",
}


def table(arguments: argparse.Namespace) -> None:
    """Print mean and standard deviation over draws of what has been scored."""
    frame = pd.DataFrame(read_records(arguments.out))
    found = frame.groupby(["target", "shots", "method"]).auroc.agg(["mean", "std", "count"])
    print(f"{found['count'].min()} to {found['count'].max()} draws\n")
    print(f"| left out | K | {' | '.join(TITLES.values())} |")
    print("|---" * (len(TITLES) + 2) + "|")
    for target, shots in found.index.droplevel("method").unique():
        rows = found.loc[target, shots].reindex(TITLES)
        cells = [f"{row['mean']:.3f} ± {row['std']:.3f}" for _, row in rows.iterrows()]
        print(f"| {target} | {shots} | {' | '.join(cells)} |")


@torch.no_grad()
def ablation(arguments: argparse.Namespace) -> None:
    """Print and draw what parts of the method do."""
    shown: dict[str, Scores] = {}
    labels = np.zeros(0, dtype=np.bool_)
    print("| variant | image AUROC |\n|---|---|")
    for name, _, path in (variant.partition("=") for variant in arguments.variants):
        model = D24fad.load_from_checkpoint(path, map_location="cpu").eval()
        target = Target.read(arguments.target, model)
        labels = target.labels
        found = []
        for draw in range(arguments.draws):
            support = draw_support(target.pool, arguments.shots, draw).image_path
            maps = model.model.blur(d24fad_maps(model, target.images, prepare(model, support)))
            scores = maps.amax(dim=(1, 2, 3)).double().numpy()
            shown.setdefault(name, scores)
            found.append(float(roc_auc_score(labels, scores)))
        print(f"| {name} | {np.mean(found):.3f} ± {np.std(found, ddof=1):.3f} ({len(found)}) |", flush=True)
    figure, axes = plt.subplots(1, len(arguments.shown), figsize=(4.5 * len(arguments.shown), 3), squeeze=False)
    for axis, name in zip(axes[0], arguments.shown, strict=True):
        bins = np.linspace(shown[name].min(), shown[name].max(), 40)
        for kind, color in ((False, "tab:blue"), (True, "tab:orange")):
            word = "abnormal" if kind else "normal"
            axis.hist(shown[name][labels == kind], bins, density=True, alpha=0.55, color=color, label=word)
        axis.set(title=f"{name}: AUROC {roc_auc_score(labels, shown[name]):.3f}", xlabel="image score", yticks=[])
    axes[0, 0].legend()
    figure.suptitle(f"{arguments.target}, K = {arguments.shots}, first draw")
    figure.tight_layout()
    figure.savefig(arguments.picture, dpi=110)


def main() -> None:
    """Run the command line."""
    teacher = os.environ.get("ANOMALIB_MEDICAL_TEACHER")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(required=True)
    scoring, ablating, printing = (subparsers.add_parser(name) for name in ("score", "ablation", "table"))
    scoring.set_defaults(run=score)
    scoring.add_argument("--ckpt_path", type=Path, required=True)
    scoring.add_argument("--teacher_weights", type=Path, default=Path(teacher) if teacher else None)
    ablating.set_defaults(run=ablation)
    ablating.add_argument("--variants", nargs="+", required=True, help="name=checkpoint")
    ablating.add_argument("--shown", nargs="+", required=True, help="variants to draw the scores of")
    ablating.add_argument("--shots", type=int, default=4)
    ablating.add_argument("--picture", type=Path, default=RESULTS / "d24fad_scores.png")
    printing.set_defaults(run=table)
    for each in (scoring, ablating):
        each.add_argument("--target", choices=SETS, required=True)
        each.add_argument("--draws", type=int, default=5)
    for each in (scoring, printing):
        each.add_argument("--out", type=Path, default=RESULTS / "d24fad_real.jsonl")
    arguments = parser.parse_args()
    # On a busy machine threads wait for one another.
    torch.set_num_threads(1)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
