"""Train DDAD's refinement on the modules that `ddad_pools.py` has trained, and keep its maps of the test images.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/ddad_refinement.py --part pool --seed 0 --epochs 10

The steps of the last epochs of `anomalib train --model anomalib_medical.Ddad --model.score refined` (with epochs
counted from 0), without training the modules once more.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ddad_pools import MODULE_B, PATTERN, Job, default_scratch

from anomalib_medical import Ddad, MedicalFolder
from anomalib_medical.models.components import add_foreign_patches
from anomalib_medical.models.ddad.member_batches import MemberBatches, read_images
from anomalib_medical.models.ddad.refinement import focal_loss
from anomalib_medical.models.ddad.torch_model import to_network_range


def assemble(scratch: Path, part: str, seed: int) -> tuple[Ddad, int]:
    """A model with refinement whose modules come from two runs of `ddad_pools.py`, and the epochs that these took."""
    model = Ddad(score="refined", seed=seed, evaluator=False, visualizer=False)
    state = model.model.state_dict()
    for name, job in (("module_a", Job(part, seed)), ("module_b", Job(MODULE_B, seed))):
        checkpoint = torch.load(scratch / job.name / "last.ckpt", weights_only=True)
        saved = checkpoint["state_dict"]
        state |= {key.removeprefix("model."): saved[key] for key in saved if key.startswith(f"model.{name}.")}
    model.model.load_state_dict(state)
    return model, int(checkpoint["epoch"])


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="pool")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=20, help="time limit")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=default_scratch())
    args = parser.parse_args()
    root = os.environ.get("ANOMALIB_MEDICAL_DATA")
    if not root:
        print("skipped: set ANOMALIB_MEDICAL_DATA to the folder that holds chest_xray.")
        return 0
    torch.set_num_threads(args.threads)
    model, trained = assemble(args.scratch, args.part, args.seed)
    data = MedicalFolder(root=Path(root) / "chest_xray", patient_pattern=PATTERN, train_batch_size=64, num_workers=0)
    data.setup()
    images = read_images(data.train_dataloader(), model.pre_processor.transform, (64, 64))
    batches = MemberBatches(images, batch_size=64, members=3, seed=args.seed)
    network = model.model.eval()
    optimizer = torch.optim.Adam(network.refinement.parameters(), 1e-4, betas=(0.5, 0.999), weight_decay=1e-4)
    started, epoch = time.monotonic(), 0
    while epoch < args.epochs and time.monotonic() - started < 60 * args.minutes:
        losses = []
        for step in range(batches.steps_of_refinement):
            normal, foreign, generator = batches.refinement(epoch, step)
            patched = add_foreign_patches(to_network_range(normal), to_network_range(foreign), generator)
            with torch.no_grad():
                maps = network.ensemble_maps(patched.images)
            network.refinement.train()
            loss = focal_loss(network.refine(maps), patched.masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1
        print(f"epoch {epoch}: loss {np.mean(losses):.4f}, {time.monotonic() - started:.0f} s", flush=True)
    network.eval()
    test = torch.from_numpy(np.load(args.scratch / "test.npz")["images"])[:, None]
    with torch.inference_mode():
        found = [network.refine(network.ensemble_maps(chunk))[:, 1] for chunk in test.split(64)]
    # Named after the epochs of the modules that it reads.
    np.save(args.scratch / Job(args.part, args.seed).name / f"refined{trained}.npy", torch.cat(found).numpy())
    return 0


if __name__ == "__main__":
    sys.exit(main())
