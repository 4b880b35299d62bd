"""Train DDAD's modules on chest X-rays, with pools of chosen anomaly rates, and keep what they reconstruct.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/ddad_pools.py --epochs 250 --seeds 0 1
    python benchmarks/ddad_tables.py            # scores, intervals, table and plot

Module B is trained once per seed. Module A is trained once per seed and pool, beside that same module B. After each of
`--milestones` epochs the reconstructions of the test images go to `--scratch`; a job goes on from its last checkpoint
when it is started again with more epochs, and ends after `--minutes`. The labels in `unlabeled_truth.csv` are read to
compose pools and for nothing else. Nothing is chosen on the test set.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib.data.utils import LabelName
from anomalib.pre_processing import PreProcessor
from common import PATTERNS, quiet_trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Resize

from anomalib_medical import Ddad, MedicalFolder
from anomalib_medical.data.pool import compose_pool
from anomalib_medical.models.ddad.torch_model import to_grey, to_network_range

PATTERN = PATTERNS["chest_xray"]
MODULE_B = "b"
REAL_POOL = "pool"  # the pool as it is: 800 images


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        part: ``b``, ``pool``, or the anomaly rate of a pool, such as ``0.4``.
        seed: Seed of weights, orders and pool.
        antialias: Whether images are resized with antialiasing.
    """

    part: str
    seed: int
    antialias: bool = True

    @property
    def name(self) -> str:
        """Name of the job's folder."""
        return f"{self.part}_seed{self.seed}" + ("" if self.antialias else "_aliased")


class PooledFolder(MedicalFolder):
    """The data with a pool of a chosen size and anomaly rate."""

    def __init__(self, root: Path, pool_size: int, anomaly_rate: float | None, pool_seed: int) -> None:
        super().__init__(root=root, patient_pattern=PATTERN, train_batch_size=64, eval_batch_size=64, num_workers=0)
        self.composition = pool_size, anomaly_rate, pool_seed

    def _setup(self, _stage: str | None = None) -> None:
        super()._setup(_stage)
        size, rate, seed = self.composition
        if rate is None:
            return
        truth = pd.read_csv(self.root / "unlabeled_truth.csv").set_index("file")
        samples = self.unlabeled_data.samples
        rows = truth.loc[[Path(path).name for path in samples.image_path]]
        labelled = samples.assign(
            label_index=np.where(rows.label == 1, LabelName.ABNORMAL, LabelName.NORMAL), patient_id=list(rows.patient)
        )
        chosen = compose_pool(labelled, size, rate, seed)
        self.unlabeled_data = self.unlabeled_data.subsample([int(row) for row in chosen.index])


class KeepReconstructions(Callback):
    """Writes a module's reconstructions of the test images at milestones, and stops in time."""

    def __init__(self, job: Job, folder: Path, milestones: list[int], images: torch.Tensor, minutes: float) -> None:
        super().__init__()
        self.job, self.folder, self.milestones, self.images = job, folder, milestones, images
        self.deadline = time.monotonic() + 60 * minutes
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write at milestones; a checkpoint with it."""
        epochs = trainer.current_epoch + 1
        late = time.monotonic() > self.deadline
        trainer.should_stop |= late
        if epochs in self.milestones:
            model = pl_module.model
            module = model.module_b if self.job.part == MODULE_B else model.module_a
            module.eval()
            with torch.inference_mode():
                parts = [module(chunk).mean for chunk in self.images.split(64)]
            module.train()
            answers = torch.cat(parts, dim=1)[:, :, 0]
            kept = answers if self.job.part == MODULE_B else answers.mean(dim=0)
            np.save(self.folder / f"epochs{epochs}.npy", kept.numpy().astype(np.float32))
        if late:
            print(f"{self.job.name}: stopped by its time limit after {epochs} epochs", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it went."""
        del pl_module
        losses = {name: float(value) for name, value in trainer.callback_metrics.items() if "step" not in name}
        record = {
            "job": self.job.name,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": time.monotonic() - self.started,
            "losses": losses,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)


def run(job: Job, root: Path, args: argparse.Namespace) -> None:
    """Run one job, or what is missing of it."""
    folder = args.scratch / job.name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "last.ckpt"
    if (folder / f"epochs{args.epochs}.npy").exists():
        return
    rate = float(job.part) if job.part not in {MODULE_B, REAL_POOL} else None
    datamodule = PooledFolder(root, args.pool_size, rate, job.seed)
    resize = Resize([64, 64], antialias=job.antialias)
    module_b = args.scratch / Job(MODULE_B, job.seed, job.antialias).name / "last.ckpt"
    model = Ddad(
        score="intra" if job.part == MODULE_B else "inter",
        module_b=None if job.part == MODULE_B else str(module_b),
        seed=job.seed,
        pre_processor=True if job.antialias else PreProcessor(Compose([resize])),
        evaluator=False,
        visualizer=False,
    )
    images = test_images(datamodule, resize, args.scratch)
    trainer = quiet_trainer(args.epochs, [KeepReconstructions(job, folder, args.milestones, images, args.minutes)])
    trainer.fit(model, datamodule=datamodule, ckpt_path=checkpoint if checkpoint.exists() else None)
    trainer.save_checkpoint(checkpoint)


def test_images(datamodule: MedicalFolder, resize: Resize, scratch: Path) -> torch.Tensor:
    """Read the test images ``(N, 1, 64, 64)`` in [-1, 1], and keep them with their labels and patients."""
    datamodule.setup()
    data = datamodule.test_data
    loader: DataLoader[Any] = DataLoader(data, batch_size=64, collate_fn=data.collate_fn)
    images = torch.cat([to_network_range(to_grey(resize(batch.image))) for batch in loader])
    samples = data.samples
    np.savez(
        scratch / f"test{'' if resize.antialias else '_aliased'}.npz",
        images=images[:, 0].numpy(),
        labels=np.asarray(samples.label_index == LabelName.ABNORMAL),
        patients=pd.factorize(samples.patient_id)[0],
        classes=np.asarray(samples.label, dtype=str),
    )
    return images


def default_scratch() -> Path:
    """Where reconstructions go unless told."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "anomalib-medical" / "ddad_pools"


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["b", "0.0", "0.2", "0.4", "0.6", "pool"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--milestones", nargs="+", type=int, default=[25, 50, 100, 150, 200, 250])
    parser.add_argument("--pool_size", type=int, default=320)
    parser.add_argument("--aliased", action="store_true", help="resize without antialiasing")
    parser.add_argument("--minutes", type=float, default=40, help="time limit of each job")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--scratch", type=Path, default=default_scratch(), help="where reconstructions go: not the repository"
    )
    args = parser.parse_args()
    root = os.environ.get("ANOMALIB_MEDICAL_DATA")
    if not root:
        print("skipped: set ANOMALIB_MEDICAL_DATA to the folder that holds chest_xray.")
        return 0
    torch.set_num_threads(args.threads)
    # Module B first: the others name its checkpoint.
    for part in sorted(args.parts, key=lambda part: part != MODULE_B):
        for seed in args.seeds:
            run(Job(part, seed, not args.aliased), Path(root) / "chest_xray", args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
