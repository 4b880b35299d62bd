"""Times the audit's two parts, reading and comparing, on many distinct files.

    python benchmarks/audit_speed.py --count 20000 --folder <scratch folder>

writes 256-pixel JPEG files into the folder (those already there are kept) and prints wall-clock and CPU seconds. Each
file is a crop of a real image under ANOMALIB_MEDICAL_DATA, turned, scaled and with noise of its own.
"""

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from anomalib_medical.data.duplicates import find_duplicates
from anomalib_medical.data.fingerprints import Fingerprint, fingerprint_all
from anomalib_medical.io import list_folder

SIDE = 256


def main() -> None:
    """Write the files where they are missing, and time the audit's parts on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--set", default="chest_xray", help="Data set whose training images are varied.")
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    sources = list_folder(Path(os.environ["ANOMALIB_MEDICAL_DATA"]) / arguments.set / "train").images
    paths = write_files(arguments.folder, sources, arguments.count)
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} JPEG files of {SIDE}x{SIDE}, {size / 2**20:.0f} MiB, from {len(sources)} of {arguments.set}")

    started, cpu = time.perf_counter(), cpu_seconds()
    records = fingerprint_all([str(path) for path in paths], workers=arguments.workers)
    report("reading", started, cpu)
    fingerprints = [record for record in records if isinstance(record, Fingerprint)]
    for parts in (None, ["train" if index % 4 else "test" for index in range(len(fingerprints))]):
        started, cpu = time.perf_counter(), cpu_seconds()
        pairs = find_duplicates(fingerprints, parts)
        kind = "all pairs" if parts is None else "all pairs between two splits"
        report(f"comparing {kind} ({len(pairs)} duplicates)", started, cpu)
    print(f"peak memory of the main process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def write_files(folder: Path, sources: list[Path], count: int) -> list[Path]:
    """Write distinct images; the same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [Image.open(path).convert("L") for path in sources]
    paths = [folder / f"{index:06d}.jpg" for index in range(count)]
    for index, path in enumerate(tqdm(paths, desc="Writing files", unit="file")):
        if path.exists():
            continue
        rng = np.random.default_rng(index)
        image = images[index % len(images)]
        turned = image.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR)
        side = rng.uniform(0.55, 0.9) * image.width
        left, top = rng.uniform(0, image.width - side, 2)
        part = turned.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        noisy = np.asarray(part, dtype=np.float32) * rng.uniform(0.7, 1.2) + rng.normal(0, 3, (SIDE, SIDE))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=85)
    return paths


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those it has ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def report(part: str, started: float, cpu: float) -> None:
    """Print how long a part took."""
    print(f"{part}: {time.perf_counter() - started:.1f} s, CPU {cpu_seconds() - cpu:.1f} s", flush=True)


if __name__ == "__main__":
    main()
