"""Compare ways of letting SCRD's scale weights act in the loss, on held-out data that the model's table does not use.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/scrd_scale_weights.py --data phantom breast_ultrasound \
        --teacher_weights /path/to/resnet18.safetensors --steps 300 --image_size 64

With d_k and n_k the distances of the student to the clean and to the noisy teacher at scale k of one image, and w_k
the image's weights (mean 1 over the scales), the forms are

    sum, batch:    mean_b sum_k w_k d_k / mean_b sum_k w_k n_k
    sum, image:    mean_b [sum_k w_k d_k / sum_k w_k n_k]
    scale, batch:  mean_k [mean_b w_k d_k / mean_b w_k n_k]
    scale, image:  mean_b mean_k w_k (d_k / n_k)

each with a penalty `-balance * mean(log(w_k))` that keeps weights from collapsing onto one scale. Each run adds one
line to the results, and a finished run is not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import anomalib_medical
from anomalib_medical import MedicalFolder, Phantom, Scrd
from anomalib_medical.data import MedicalDataset

EPSILON = 1e-6
FORMS = {
    "sum_batch": lambda d, n, w: (w * d).sum(1).mean() / ((w * n).sum(1).mean() + EPSILON),
    "sum_image": lambda d, n, w: ((w * d).sum(1) / ((w * n).sum(1) + EPSILON)).mean(),
    "scale_batch": lambda d, n, w: ((w * d).mean(0) / ((w * n).mean(0) + EPSILON)).mean(),
    "scale_image": lambda d, n, w: (w * (d / (n + EPSILON))).mean(),
}
RUNS = [
    ("none", "sum_batch", 0.0),
    *[("scale_aware", form, balance) for form in FORMS for balance in (0.0, 0.1)],
]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["phantom"], help="phantom, or folders of ANOMALIB_MEDICAL_DATA.")
    parser.add_argument("--teacher_weights", type=str, default=None)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scrd_scale_weights.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for name in args.data:
        train, test, labels = _load(name, args.image_size)
        for seed in args.seeds:
            for weighting, form, balance in RUNS:
                if form not in args.forms:
                    continue
                key = {
                    "data": name,
                    "weighting": weighting,
                    "form": form,
                    "balance": balance,
                    "seed": seed,
                    "steps": args.steps,
                    "image_size": args.image_size,
                    "random_teacher": args.teacher_weights is None,
                }
                if any(key.items() <= line.items() for line in done):
                    continue
                result = _run(train, test, labels, weighting, form, balance, seed, args)
                line = key | result | {"version": anomalib_medical.__version__}
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)


def _load(name: str, size: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return training images, test images (both normalised) and test labels."""
    if name == "phantom":
        # Not the seed that the package's own figures use.
        datamodule = Phantom(difficulty="medium", image_size=128, seed=1000)
    else:
        datamodule = MedicalFolder(root=Path(os.environ["ANOMALIB_MEDICAL_DATA"]) / name)
    datamodule.prepare_data()
    datamodule.setup()
    transform = Scrd.configure_pre_processor((size, size)).transform

    def images(dataset: MedicalDataset) -> torch.Tensor:
        return torch.cat([transform(dataset[index].image[None]) for index in range(len(dataset))])

    test: MedicalDataset = datamodule.test_data
    return images(datamodule.train_data), images(test), test.samples.label_index.to_numpy().astype(int)


def _run(
    train: torch.Tensor,
    test: torch.Tensor,
    labels: np.ndarray,
    weighting: str,
    form: str,
    balance: float,
    seed: int,
    args: argparse.Namespace,
) -> dict[str, object]:
    """Train for a fixed number of steps and score the test images with the last weights."""
    model = Scrd(
        backbone="resnet18",
        image_size=args.image_size,
        pre_trained=False,
        teacher_weights=args.teacher_weights,
        weighting=weighting,
        seed=seed,
    )
    model.load_teacher()
    model.log = model.log_dict = lambda *_, **__: None

    def loss(clean: torch.Tensor, noisy: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        equal = torch.ones_like(clean) if weights is None else weights
        value = FORMS[form](clean, noisy, equal)
        return value - balance * equal.clamp(min=EPSILON).log().mean()

    model.loss.forward = loss
    optimizer = model.configure_optimizers()
    generator = torch.Generator().manual_seed(seed)
    model.train()
    started = time.monotonic()
    for step in range(args.steps):
        images = train[torch.randperm(len(train), generator=generator)[: args.batch_size]]
        value = model.training_step(SimpleNamespace(image=images, batch_size=len(images)), step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    seconds = time.monotonic() - started
    model.eval()
    with torch.no_grad():
        maps = torch.cat([model.model(part).anomaly_map for part in test.split(16)])
        parts = [model.model.scale_weights(part) for part in test.split(16)]
    weights = np.full((len(test), 3), 1 / 3) if parts[0] is None else torch.cat(parts).numpy() / 3
    return {
        "auroc_mean": round(float(roc_auc_score(labels, maps.mean((1, 2, 3)))), 4),
        "auroc_max": round(float(roc_auc_score(labels, maps.amax((1, 2, 3)))), 4),
        "scale_weight_mean": weights.mean(0).round(3).tolist(),
        "scale_weight_std": weights.std(0).round(3).tolist(),
        "last_loss": round(float(value), 4),
        "seconds": round(seconds, 1),
        "n_test": len(labels),
    }


if __name__ == "__main__":
    main()
