"""One wrong image in the support of D2-4FAD: is it warned of, and what does it cost?

    python benchmarks/d24fad_support.py warnings --ckpt_path <checkpoint>
    python benchmarks/d24fad_support.py auroc --target brain_flair --ckpt_path <checkpoint>
    python benchmarks/d24fad_support.py spread --target brain_flair --ckpt_path <checkpoint>

`warnings` draws supports of normal images of different patients and replaces one by an abnormal image of the same data
set or by a normal image of another. `auroc` scores the target's test set with such supports, `spread`
tells how far apart the student sees images of the target. ANOMALIB_MEDICAL_DATA names the data.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import SETS, data_set, normals_of
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical import D24fad, MedicalFolder
from anomalib_medical.data.few_shot.support import draw_support
from anomalib_medical.data.images import read_image
from anomalib_medical.models.d24fad.matching import EncodedSupport
from anomalib_medical.models.d24fad.support import diverse_rows, embed, find_outliers, score_ratios


@torch.no_grad()
def encode(model: D24fad, paths: list[str]) -> list[torch.Tensor]:
    """The student's features of images, at each scale."""
    prepare = model.pre_processor
    parts = [model.model.encode(prepare(read_image(path)[None]))[1] for path in paths]
    return [torch.cat(scale) for scale in zip(*parts, strict=True)]


@torch.no_grad()
def embeddings(model: D24fad, paths: list[str]) -> torch.Tensor:
    """One vector an image, as the choice of diverse images sees it."""
    prepare = model.pre_processor
    return torch.cat([embed(model.model.teacher(prepare(read_image(path)[None]))) for path in paths])


def abnormal_of(data: MedicalFolder, most: int = 200) -> list[str]:
    """Abnormal test images."""
    paths = data.test_data.samples[data.test_data.samples.label_index == 1].image_path
    return list(paths.sample(min(most, len(paths)), random_state=0))


@torch.no_grad()
def warnings(arguments: argparse.Namespace) -> None:
    """Print how often the warning is right and wrong."""
    model = D24fad.load_from_checkpoint(arguments.ckpt_path, map_location="cpu").eval()
    tables, normal, abnormal = {}, {}, {}
    for name in SETS:
        data = data_set(name)
        tables[name] = normals_of(data)
        tables[name] = tables[name].assign(row=range(len(tables[name])))
        # The embeddings travel as a fourth scale.
        for images, paths in ((normal, list(tables[name].image_path)), (abnormal, abnormal_of(data))):
            images[name] = [*encode(model, paths), embeddings(model, paths)]

    def with_added(rest: list[torch.Tensor], added: list[torch.Tensor], row: int) -> list[int]:
        """Outliers of a support of ``rest`` and, at its end, one row of ``added``."""
        *support, vectors = (torch.cat([scale, other[[row]]]) for scale, other in zip(rest, added, strict=True))
        model.model.support.fill(model.model.with_keys(support))
        return find_outliers(model.model, vectors)

    print(f"{arguments.draws} draws\n")
    print("| data | K | warned without reason | abnormal image warned of | ... most unlike the others | other organ |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name in SETS:
        foreign = [torch.cat([normal[other][scale] for other in SETS if other != name]) for scale in range(4)]
        for shots in (4, 8):
            counts = np.zeros(4)
            for draw in range(arguments.draws):
                *rows, last = draw_support(tables[name], shots, draw).row.to_list()
                rest = [scale[rows] for scale in normal[name]]
                counts[0] += bool(with_added(rest, normal[name], last))
                counts[1] += shots - 1 in with_added(rest, abnormal[name], int(rng.integers(len(abnormal[name][0]))))
                counts[2] += int(score_ratios(model.model).argmax()) == shots - 1
                counts[3] += shots - 1 in with_added(rest, foreign, int(rng.integers(len(foreign[0]))))
            print(f"| {name} | {shots} | " + " | ".join(f"{count:.2f}" for count in counts / arguments.draws) + " |")


@torch.no_grad()
def spread(model: D24fad, paths: list[str]) -> str:
    """How far apart student and teacher see images: 1 - cos of their features, mean over pairs, at each scale."""
    encoded = [model.model.encode(model.pre_processor(read_image(path)[None])) for path in paths]
    means = []
    for who in (1, 0):
        scales = [torch.cat(scale).flatten(1) for scale in zip(*(each[who] for each in encoded), strict=True)]
        half = len(paths) // 2
        similar = [F.cosine_similarity(scale[:half], scale[half : 2 * half]).mean() for scale in scales]
        means.append(", ".join(f"{1 - float(value):.3f}" for value in similar))
    return f"two test images differ by {means[0]} for the student, {means[1]} for the teacher"


def print_spread(arguments: argparse.Namespace) -> None:
    """Print how far apart student and teacher see images of the target."""
    model = D24fad.load_from_checkpoint(arguments.ckpt_path, map_location="cpu").eval()
    paths = list(data_set(arguments.target).test_data.samples.image_path[:100])
    print(f"{arguments.target}: {spread(model, paths)}")


@torch.no_grad()
def auroc(arguments: argparse.Namespace) -> None:
    """Print the AUROC with clean, polluted and diverse supports."""
    model = D24fad.load_from_checkpoint(arguments.ckpt_path, map_location="cpu").eval()
    network = model.model
    data = data_set(arguments.target)
    test = data.test_data.samples
    tested = encode(model, list(test.image_path))
    pool = normals_of(data).assign(row=lambda table: range(len(table)))
    student = encode(model, list(pool.image_path))
    similar = embeddings(model, list(pool.image_path))
    rng = np.random.default_rng(0)
    ill = np.flatnonzero(test.label_index == 1)

    def score(support: list[EncodedSupport], left_out: int | None) -> float:
        rows = [row for row in range(len(test)) if row != left_out]
        queries = [scale[rows] for scale in tested]
        scores = network.compare(queries, support).pred_score
        return float(roc_auc_score(test.label_index.to_numpy()[rows], scores))

    print(f"{arguments.target}: {spread(model, list(test.image_path[:100]))}")
    print(f"{arguments.draws} draws, mean and standard deviation over draws of the image AUROC\n")
    print("| K | random support | one abnormal image in it | the same with K - 1 normal images | diverse support |")
    print("|---|---|---|---|---|")
    for shots in (2, 4, 8):
        columns: list[list[float]] = [[], [], [], []]
        for draw in range(arguments.draws):
            rows = draw_support(pool, shots, draw).row.to_list()
            bad = int(rng.choice(ill))
            polluted = [
                torch.cat([scale[rows[1:]], other[[bad]]]) for scale, other in zip(student, tested, strict=True)
            ]
            chosen = diverse_rows(similar, shots, draw)
            supports = [[scale[rows] for scale in student], polluted, [scale[rows[1:]] for scale in student]]
            supports.append([scale[chosen] for scale in student])
            # The planted image is left out of the test everywhere, so that columns are of the same images.
            for column, support in zip(columns, supports, strict=True):
                column.append(score(network.with_keys(support), bad))
        cells = [f"{np.mean(column):.3f} ± {np.std(column):.3f}" for column in columns]
        print(f"| {shots} | " + " | ".join(cells) + " |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(required=True)
    warning = subparsers.add_parser("warnings")
    warning.set_defaults(run=warnings)
    cost = subparsers.add_parser("auroc")
    cost.add_argument("--target", choices=SETS, required=True)
    cost.set_defaults(run=auroc)
    collapse = subparsers.add_parser("spread")
    collapse.set_defaults(run=print_spread)
    collapse.add_argument("--target", choices=SETS, required=True)
    for each in (warning, cost, collapse):
        each.add_argument("--ckpt_path", type=Path, required=True)
    for each in (warning, cost):
        each.add_argument("--draws", type=int, default=100 if each is warning else 10)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
