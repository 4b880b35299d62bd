"""Is the spread of an ensemble that is trained in one run that of networks that were trained separately?

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/ddad_spread.py --repeats 20

Three ways to get 3 autoencoders, on the same normal images of chest_xray (32x32, so that many repeats are possible):

- `one run`: module B of `Ddad`;
- `separate`: three runs of `Ddad` with one network each, every one with a seed of its own;
- `shared order`: `Ddad` with every network made to see the images in the order of the first, with initial weights of
  its own: what a naive joint training would do.

Printed for each: the mean over test images and pixels of the standard deviation between the three reconstructions, as
mean over the repeats, with its standard error, and the ratio to `separate` with a 95% interval and the p value of
Welch's t test of the logarithms. The repeats differ in all seeds; those that `--out` holds are not run again.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import append_record, quiet_trainer, read_records
from scipy import stats
from torchvision.transforms.v2.functional import resize

from anomalib_medical import Ddad, MedicalFolder
from anomalib_medical.models.ddad import member_batches
from anomalib_medical.models.ddad.torch_model import to_grey, to_network_range

MEMBERS = 3
SIZE = 32


@contextmanager
def one_order_for_all() -> Iterator[None]:
    """Let all members of a module draw the order of the first."""
    original = member_batches.stream_seed

    def shared(seed: int, module: int, member: int, epoch: int) -> int:
        del member
        return original(seed, module, 0, epoch)

    with mock.patch.object(member_batches, "stream_seed", shared):
        yield


def train(data: MedicalFolder, members: int, seed: int, epochs: int) -> Ddad:
    """Train module B."""
    model = Ddad(score="reconstruction", members=members, image_size=SIZE, seed=seed, evaluator=False, visualizer=False)
    trainer = quiet_trainer(epochs)
    trainer.fit(model, datamodule=data)
    return model.eval()


def spread(networks: list[torch.nn.Module], images: torch.Tensor) -> float:
    """Mean over images and pixels of the unbiased standard deviation between the networks."""
    with torch.inference_mode():
        answers = torch.stack([network(images).mean for network in networks])
    return float(answers.std(dim=0).mean())


def measure(data: MedicalFolder, images: torch.Tensor, repeat: int, epochs: int) -> dict[str, float]:
    """One repeat of all three ways."""
    seed = 1000 * repeat
    joint = train(data, MEMBERS, seed, epochs)
    with one_order_for_all():
        shared = train(data, MEMBERS, seed + 1, epochs)
    alone = [train(data, 1, seed + 2 + index, epochs) for index in range(MEMBERS)]
    return {
        "separate": spread([model.model.module_b.members[0] for model in alone], images),
        "one run": spread(list(joint.model.module_b.members), images),
        "shared order": spread(list(shared.model.module_b.members), images),
    }


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ddad_spread.jsonl")
    args = parser.parse_args()
    root = os.environ.get("ANOMALIB_MEDICAL_DATA")
    if not root:
        print("skipped: set ANOMALIB_MEDICAL_DATA to the folder that holds chest_xray.")
        return 0
    torch.set_num_threads(args.threads)
    data = MedicalFolder(root=Path(root) / "chest_xray", train_batch_size=64, num_workers=0)
    data.setup()
    normal = [index for index, label in enumerate(data.test_data.samples.label_index) if label == 0][:100]
    images = torch.stack([resize(data.test_data[index].image, [SIZE, SIZE], antialias=True) for index in normal])
    images = to_network_range(to_grey(images))
    done = {record["repeat"]: record for record in read_records(args.out) if record["epochs"] == args.epochs}
    for repeat in range(args.repeats):
        if repeat not in done:
            done[repeat] = {"repeat": repeat, "epochs": args.epochs, **measure(data, images, repeat, args.epochs)}
            append_record(args.out, done[repeat])
            print(done[repeat], flush=True)
    results = [done[repeat] for repeat in range(args.repeats)]
    print(f"\n{MEMBERS} networks, {args.epochs} epochs of {len(data.train_data)} images, n = {args.repeats} repeats\n")
    print("| | mean spread (standard error) | ratio to separate | p |\n|---|---|---|---|")
    reference = np.log([result["separate"] for result in results])
    for way in ("separate", "one run", "shared order"):
        values = np.array([result[way] for result in results])
        told = "- | -"
        if way != "separate":
            test = stats.ttest_ind(np.log(values), reference, equal_var=False)
            low, high = np.exp(test.confidence_interval())
            ratio = np.exp(np.log(values).mean() - reference.mean())
            told = f"{ratio:.3f} [{low:.3f}, {high:.3f}] | {test.pvalue:.2g}"
        print(f"| {way} | {values.mean():.5f} ({stats.sem(values):.5f}) | {told} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
