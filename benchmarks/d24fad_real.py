"""D2-4FAD on a task it has not learned from, against models fitted on the same few normal images.

    python benchmarks/d24fad_real.py score --target brain_flair --backbone tf_efficientnet_lite0
    python benchmarks/d24fad_real.py score --target brain_flair --trained NAME=CHECKPOINT ... --shots 4
    python benchmarks/d24fad_real.py table

`score` draws supports of K normal images of different patients and adds a line for every draw to the results: the image
AUROC of D2-4FAD's teacher without any training (position by position, and nearest within windows), of anomalib's
PatchCore (without a coreset) and PaDiM fitted on the same features of the same K images, and of the nearest 32x32
thumbnail among them; or of trained checkpoints. What is there already is not run again. Every image is encoded once.

ANOMALIB_MEDICAL_DATA names the data, ANOMALIB_MEDICAL_TEACHER the weights of `--backbone resnet18`; those of
`tf_efficientnet_lite0` are of the package that the extra `teacher` installs.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anomalib.models import Padim, Patchcore
from common import SETS, append_record, data_set, normals_of, read_records
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical import D24fad
from anomalib_medical.data.few_shot.support import draw_support
from anomalib_medical.data.images import read_image
from anomalib_medical.models.d24fad.matching import nearest_distances

RESULTS = Path(__file__).resolve().parent / "results" / "d24fad_real.jsonl"
SHOTS, DRAWS, BATCH = (2, 4, 8), 5, 16
WINDOWS = (0.0, 0.125, 0.25, 1.0)
Scores = npt.NDArray[np.float64]
Levels = list[torch.Tensor]
# From rows of the images to support, and rows to score, to scores.
Scorer = Callable[[list[int]], torch.Tensor]


def encode(model: D24fad, paths: list[str]) -> tuple[Levels, Levels]:
    """Teacher's and student's scales of all images, each encoded once."""
    parts = [model.model.encode(model.prepare(read_image(path)[None])) for path in paths]
    teacher, student = zip(*parts, strict=True)
    return _stacked(teacher), _stacked(student)


def _stacked(pyramids: Iterable[Levels]) -> Levels:
    return [torch.cat(scale) for scale in zip(*pyramids, strict=True)]


def by_model(model: D24fad, support: Levels, tested: Levels) -> Scorer:
    """Score levels as the model does."""
    network = model.model

    def score(rows: list[int]) -> torch.Tensor:
        encoded = network.with_keys([level[rows] for level in support])
        parts = zip(*(level.split(BATCH) for level in tested), strict=True)
        scores = [network.compare(part, encoded).pred_score for part in parts]
        return torch.cat(scores)  # type: ignore[arg-type]  # the model scores

    return score


def by_distances(model: D24fad, support: Levels, tested: Levels, window: float) -> Scorer:
    """Score as the model does without weights, but for a factor: each pair of images is compared once for all K."""
    distances = torch.cat([nearest_distances(part, support[0], window) for part in tested[0].split(BATCH)])

    def score(rows: list[int]) -> torch.Tensor:
        maps = distances[:, rows].amin(dim=1, keepdim=True)
        size = [model.model.reduction * side for side in maps.shape[-2:]]
        maps = F.interpolate(maps, size, mode="bilinear", align_corners=True)
        scores: torch.Tensor = torch.cat([model.model.finish(part).pred_score for part in maps.split(BATCH)])  # type: ignore[arg-type]
        return scores

    return score


class Encoded(nn.Module):
    """In the place of a backbone: features that are there already, of images that hold nothing but their row."""

    def __init__(self, features: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Look up."""
        rows = images[:, 0, 0, 0].long()
        return {layer: features[rows] for layer, features in self.features.items()}


def by_rival(name: str, support: Levels, tested: Levels, side: int) -> Scorer:
    """One of anomalib's models, fitted and scored on the teacher's scales: PatchCore on two, PaDiM on all three."""
    layers = ["layer1", "layer2", "layer3"][1 if name == "patchcore" else 0 :]

    def images(rows: torch.Tensor) -> torch.Tensor:
        return rows[:, None, None, None].expand(-1, 3, side, side).float()

    def score(rows: list[int]) -> torch.Tensor:
        torch.manual_seed(rows[0])
        arguments: dict[str, Any] = dict.fromkeys(("pre_processor", "post_processor", "evaluator", "visualizer"), False)
        arguments |= {"backbone": "resnet18", "pre_trained": False, "layers": layers}
        model: Any = Patchcore(coreset_sampling_ratio=1.0, **arguments) if name == "patchcore" else Padim(**arguments)
        network = model.model
        if name == "padim":
            network.idx = torch.randperm(sum(scale.shape[1] for scale in support))[: network.n_features]
        network.feature_extractor = Encoded(dict(zip(layers, support[-len(layers) :], strict=True)))
        network.train()(images(torch.tensor(rows)))
        model.fit()
        network.feature_extractor = Encoded(dict(zip(layers, tested[-len(layers) :], strict=True)))
        network.eval()
        parts = torch.arange(len(tested[0])).split(BATCH)
        return torch.cat([network(images(part)).pred_score.reshape(-1) for part in parts])

    return score


def by_thumbnail(support: list[str], tested: list[str]) -> Scorer:
    """Distance to the nearest support image at 32x32 grey pixels."""

    def thumbnails(paths: list[str]) -> Scores:
        images = [cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype(np.float64) / 255 for path in paths]
        return np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in images])

    distances = torch.cdist(*(torch.from_numpy(thumbnails(paths)) for paths in (tested, support)))
    return lambda rows: distances[:, rows].amin(dim=1)


def scorers(arguments: argparse.Namespace, support: list[str], tested: list[str]) -> dict[str, Callable[[], Scorer]]:
    """Everything that is compared, built when it is needed."""
    if arguments.trained:
        return {name: lambda path=path: _trained(path, support, tested) for name, path in arguments.trained}
    options: dict[str, Any] = {"backbone": arguments.backbone, "image_size": arguments.image_size}
    options |= {"features": "teacher", "weighting": "none"}
    if arguments.backbone == "resnet18":
        options["teacher_weights"] = os.environ["ANOMALIB_MEDICAL_TEACHER"]
    aligned, nearest = D24fad(**options), D24fad(**options, matching="nearest")
    aligned.load_teacher()
    (pool, _), (test, _) = encode(aligned.eval(), support), encode(aligned, tested)
    joined = [nearest.model.levels(scales, []) for scales in (pool, test)]
    found: dict[str, Callable[[], Scorer]] = {"aligned, teacher": lambda: by_model(aligned, pool, test)}
    for window in WINDOWS:
        found[f"nearest {window:g}, teacher"] = lambda window=window: by_distances(nearest, *joined, window)  # type: ignore[misc]
    for name in ("patchcore", "padim"):
        found[name] = lambda name=name: by_rival(name, pool, test, arguments.image_size)  # type: ignore[misc]
    return found | {"thumbnail": lambda: by_thumbnail(support, tested)}


def _trained(path: str, support: list[str], tested: list[str]) -> Scorer:
    model = D24fad.load_from_checkpoint(path, map_location="cpu").eval()
    encoded = [model.model.levels(*encode(model, paths)) for paths in (support, tested)]
    return by_model(model, *encoded)


@torch.no_grad()
def score(arguments: argparse.Namespace) -> None:
    """Score supports that have not been scored."""
    data = data_set(arguments.target)
    test, pool = data.test_data.samples, normals_of(data)
    drawn = {(shots, draw): draw_support(pool, shots, draw) for shots in arguments.shots for draw in range(DRAWS)}
    support = list(dict.fromkeys(path for table in drawn.values() for path in table.image_path))
    keys = ("target", "teacher", "method", "shots", "draw")
    known = {tuple(record[key] for key in keys) for record in read_records(RESULTS)}
    for method, build in scorers(arguments, support, list(test.image_path)).items():
        scorer = None
        for (shots, draw), table in drawn.items():
            case = (arguments.target, arguments.backbone, method, shots, draw)
            if case in known:
                continue
            scorer = scorer or build()
            scores = scorer([support.index(path) for path in table.image_path])
            auroc = float(roc_auc_score(test.label_index, scores))
            append_record(RESULTS, dict(zip(keys, case, strict=True)) | {"n": len(test), "auroc": round(auroc, 4)})
        print(arguments.target, method, flush=True)


def table(arguments: argparse.Namespace) -> None:
    """Print mean and standard deviation over draws of what has been scored."""
    del arguments
    frame = pd.DataFrame(read_records(RESULTS))
    for teacher, of_teacher in frame.groupby("teacher", sort=False):
        methods = list(dict.fromkeys(of_teacher.method))
        print(f"\n{teacher}, {of_teacher.draw.nunique()} draws\n\n| left out | K | {' | '.join(methods)} |")
        print("|---" * (len(methods) + 2) + "|")
        for (target, shots), rows in of_teacher.groupby(["target", "shots"]):
            found = rows.groupby("method").auroc.agg(["mean", "std"]).reindex(methods)
            cells = [
                "" if np.isnan(row["mean"]) else f"{row['mean']:.3f} ± {row['std']:.3f}" for _, row in found.iterrows()
            ]
            print(f"| {target} | {shots} | {' | '.join(cells)} |")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(required=True)
    scoring, printing = (subparsers.add_parser(name) for name in ("score", "table"))
    scoring.set_defaults(run=score)
    scoring.add_argument("--target", choices=SETS, required=True)
    scoring.add_argument("--backbone", default="tf_efficientnet_lite0", help="of the teacher, also of checkpoints")
    scoring.add_argument("--image_size", type=int, default=128)
    scoring.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    scoring.add_argument("--trained", nargs="+", type=lambda text: text.split("=", 1), help="name=checkpoint")
    printing.set_defaults(run=table)
    arguments = parser.parse_args()
    # On a busy machine threads wait for one another.
    torch.set_num_threads(1)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
