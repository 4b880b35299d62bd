"""Time and memory of scoring with D2-4FAD, against encoding the support again for every batch.

    python benchmarks/d24fad_inference.py --backbone resnet18 wide_resnet50_2 --shots 2 4 8 --batch_size 4

For the same weights and images, all in evaluation mode and without gradient:

- `ours`: the support is encoded once and kept; a batch of B images is B encodings.
- `once a batch`: its K images are encoded again with every batch, B + K encodings.
- `released`: what the released code does, from its description: the support is repeated for every image of the batch
  and all of it encoded, B + B K encodings.
- `rd`: anomalib's ReverseDistillation with the same backbone at the same size, for whose latency ours should be near.

Variants take turns, ratios are taken within a turn and the median of them is printed. Peak memory is measured in
a process of its own, above model and encoded support.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

from anomalib_medical.models.components import cosine_distance_maps
from anomalib_medical.models.d24fad.matching import EncodedSupport
from anomalib_medical.models.d24fad.torch_model import D24fadModel

VARIANTS = ("ours", "once a batch", "released", "rd")
LAYERS = ["layer1", "layer2", "layer3"]


def build(variant: str, backbone: str, size: int, shots: int) -> Callable[[torch.Tensor], object]:
    """Return what scores a batch ``(B, 3, H, W)``."""
    torch.manual_seed(0)
    if variant == "rd":
        adding = AnomalyMapGenerationMode.ADD
        return ReverseDistillationModel(backbone, (size, size), LAYERS, adding, pre_trained=False).eval()
    model = D24fadModel(backbone).eval()
    support = torch.randn(shots, 3, size, size)
    if variant == "ours":
        model.support.fill(model.encode_support(support))
        return model
    if variant == "once a batch":
        return lambda images: model.score(images, model.encode_support(support))

    def released(images: torch.Tensor) -> object:
        count = len(images)
        repeated = model.with_keys(model.encode(support.repeat(count, 1, 1, 1))[1])
        _, student = model.encode(images)
        # Every image has its own copy of the support.
        weighted = [
            model.weigh([features[[i]] for features in student], [_rows(scale, i, shots) for scale in repeated])
            for i in range(count)
        ]
        joined = [torch.cat(scale) for scale in zip(*weighted, strict=True)]
        return model.finish(cosine_distance_maps(student, joined, (size, size)))

    return released


def _rows(scale: EncodedSupport, index: int, shots: int) -> EncodedSupport:
    rows = slice(index * shots, (index + 1) * shots)
    return EncodedSupport(scale.features[rows], scale.keys[rows])


@torch.no_grad()
def times(backbone: str, shots: int, batch_size: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds for each variant and turn."""
    images = torch.randn(batch_size, 3, args.image_size, args.image_size)
    scorers = {variant: build(variant, backbone, args.image_size, shots) for variant in VARIANTS}
    for score in scorers.values():
        score(images)
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for turn in range(args.repeats):
        order = list(scorers.items())
        for variant, score in order if turn % 2 == 0 else reversed(order):
            started = time.perf_counter()
            score(images)
            found[variant].append(time.perf_counter() - started)
    return found


@torch.no_grad()
def memory(variant: str, backbone: str, shots: int, args: argparse.Namespace) -> float:
    """MiB that scoring takes at its peak beyond model and encoded support; Linux only, elsewhere not a number."""
    score = build(variant, backbone, args.image_size, shots)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size)
    try:
        # Forgets the peak of importing and building.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        score(images)
        return _status("VmHWM") - before
    except OSError:
        return float("nan")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def _memory_in_child(variant: str, backbone: str, shots: int, args: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--child", variant, "--backbone", backbone, "--shots", str(shots)]
    command += ["--batch_size", str(args.batch_size), "--image_size", str(args.image_size)]
    command += ["--threads", str(args.threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.strip().splitlines()[-1]))


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["resnet18", "wide_resnet50_2"])
    parser.add_argument("--shots", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    # anomalib's imports warn.
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps(memory(args.child, args.backbone[0], args.shots[0], args)))
        return
    print(
        f"{args.image_size}x{args.image_size}, {args.threads} threads on {os.cpu_count()} {platform.machine()} cores, "
        f"torch {torch.__version__}, medians of {args.repeats} turns\n"
    )
    print("| backbone | K | batch | ours | once a batch | released | rd | ours over rd | memory ours | released |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for backbone in args.backbone:
        for shots in args.shots:
            needed = {name: _memory_in_child(name, backbone, shots, args) for name in ("ours", "released")}
            for batch_size in sorted({1, args.batch_size}):
                found = times(backbone, shots, batch_size, args)
                cells = [f"{1000 * statistics.median(found['ours']) / batch_size:.1f} ms an image"]
                cells += [f"{_ratio(found[name], found['ours']):.2f}x" for name in ("once a batch", "released", "rd")]
                cells.append(f"{_ratio(found['ours'], found['rd']):.2f}")
                cells += [f"{mib:.0f} MiB" if batch_size == args.batch_size else "" for mib in needed.values()]
                print(f"| {backbone} | {shots} | {batch_size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
