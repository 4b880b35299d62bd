"""Time and memory of training DDAD's six networks in one run, against six trainings one after another.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/ddad_training.py --epochs 4 --threads 2

All train the same networks on the same images of chest_xray (known normals and the unlabeled pool) for the same epochs:

- `ours`: `Ddad` through Lightning's trainer; images are read once.
- `sequential`: what the released code does, from its description: network after network, each with its own data set
  and loader. Every training reads the files once and keeps them.
- `sequential, re-read`: the same, with the files read again in every epoch.

Each is run in a process of its own, in turn, `--repeats` times; medians are printed. `--forms` compares ways to compute
the networks of one module: a loop over them, and `torch.func.vmap` over stacked parameters.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from anomalib.pre_processing import PreProcessor
from common import quiet_trainer
from PIL import Image
from torch import nn
from torch.func import functional_call, grad, stack_module_state
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Compose, Resize
from torchvision.transforms.v2.functional import pil_to_tensor

from anomalib_medical import Ddad, MedicalFolder
from anomalib_medical.io import list_folder
from anomalib_medical.models.ddad.networks import Autoencoder, Ensemble

SIZE = (64, 64)
BATCH = 64
MEMBERS = 3
VARIANTS = ("ours", "sequential", "sequential, re-read")


class Files(Dataset[torch.Tensor]):
    """Grey images in [-1, 1], one file at a time."""

    def __init__(self, paths: list[Path], *, keep: bool) -> None:
        self.paths = paths
        self.kept = [self._read(path) for path in paths] if keep else None

    def __len__(self) -> int:
        """Count the files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one image."""
        return self._read(self.paths[index]) if self.kept is None else self.kept[index]

    @staticmethod
    def _read(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            small = image.convert("L").resize(SIZE, Image.Resampling.BILINEAR)
        return pil_to_tensor(small).float() / 127.5 - 1


def train_sequentially(root: Path, epochs: int, normals: list[Path], *, keep: bool) -> int:
    """Train network after network; returns the number of optimizer steps."""
    steps = 0
    for paths in ([*normals, *list_folder(root / "unlabeled").images], normals):
        for _ in range(MEMBERS):
            network = Autoencoder(SIZE).train()
            optimizer = torch.optim.Adam(network.parameters(), 5e-4, betas=(0.5, 0.999))
            loader = DataLoader(Files(paths, keep=keep), BATCH, shuffle=True, drop_last=True)
            for _ in range(epochs):
                for images in loader:
                    loss = nn.functional.mse_loss(network(images).mean, images)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    steps += 1
    return steps


def train_ours(data: MedicalFolder, epochs: int) -> int:
    """Train all networks in one run; returns the number of their optimizer steps."""
    model = Ddad(seed=0, pre_processor=PreProcessor(Compose([Resize(list(SIZE))])), evaluator=False, visualizer=False)
    trainer = quiet_trainer(epochs)
    trainer.fit(model, datamodule=data)
    pool, normal = len(data.unlabeled_data), len(data.train_data)
    return MEMBERS * epochs * ((pool + normal) // BATCH + normal // BATCH)


def measure(variant: str, root: Path, epochs: int) -> dict[str, float]:
    """Run one variant in this process."""
    data = MedicalFolder(root=root, train_batch_size=BATCH, num_workers=0)
    data.setup()
    normals = [Path(path) for path in data.train_data.samples.image_path]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if variant == "ours":
        steps = train_ours(data, epochs)
    else:
        steps = train_sequentially(root, epochs, normals, keep=variant == "sequential")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "steps": steps, "peak_mib": peak / 1024, "grown_mib": (peak - before) / 1024}


def compare_forms(repeats: int, device: str = "cpu", batch: int = BATCH) -> dict[str, float]:
    """Seconds (median) for the gradients of one module's networks, in a loop and stacked."""
    ensemble = Ensemble("ae", MEMBERS, SIZE).to(device).train()
    batches = torch.rand(MEMBERS, batch, 1, *SIZE, device=device)
    skeleton = Autoencoder(SIZE).to(device).train()

    def loop() -> None:
        ensemble.zero_grad()
        ensemble.losses(batches).sum().backward()

    def member_loss(
        parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        answer = functional_call(skeleton, (parameters, buffers), (images,))
        return nn.functional.mse_loss(answer.mean, images)

    parameters, buffers = stack_module_state(list(ensemble.members))
    stacked_gradients = torch.vmap(grad(member_loss))

    def stacked() -> None:
        stacked_gradients(parameters, buffers, batches)

    return {
        name: statistics.median([_seconds(form, device) for _ in range(repeats + 1)][1:])
        for name, form in (("loop", loop), ("vmap", stacked))
    }


def _seconds(form: Callable[[], None], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    form()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", action="store_true", help="compare a loop with vmap, and stop")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.forms:
        for name, seconds in compare_forms(args.repeats).items():
            print(f"{name}: {1000 * seconds:.0f} ms for {MEMBERS} networks (median of {args.repeats})")
        return 0
    root = os.environ.get("ANOMALIB_MEDICAL_DATA")
    if not root:
        print("skipped: set ANOMALIB_MEDICAL_DATA to the folder that holds chest_xray.")
        return 0
    if args.child:
        print(json.dumps(measure(args.child, Path(root) / "chest_xray", args.epochs)))
        return 0
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    settings = ["--epochs", str(args.epochs), "--threads", str(args.threads)]
    for _ in range(args.repeats):
        for variant in VARIANTS:
            command = [sys.executable, __file__, *settings, "--child", variant]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[variant].append(json.loads(done.stdout.strip().splitlines()[-1]))
    baseline = statistics.median(result["seconds"] for result in results["sequential"])
    print(f"{args.epochs} epochs, {args.threads} threads on {platform.machine()}, torch {torch.__version__}\n")
    print("| | network steps | seconds | throughput against sequential | peak memory | of which the training's |")
    print("|---|---|---|---|---|---|")
    for variant, runs in results.items():
        seconds, peak, grown = (
            statistics.median(run[key] for run in runs) for key in ("seconds", "peak_mib", "grown_mib")
        )
        spread = f"{min(run['seconds'] for run in runs):.1f} to {max(run['seconds'] for run in runs):.1f}"
        print(
            f"| {variant} | {runs[0]['steps']:.0f} | {seconds:.1f} ({spread}) | {baseline / seconds:.2f} | "
            f"{peak:.0f} MiB | {grown:.0f} MiB |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
