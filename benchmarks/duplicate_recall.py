"""How many changed copies the near-duplicate search finds, and how many pairs of different patients it calls copies.

    python benchmarks/duplicate_recall.py

`ANOMALIB_MEDICAL_DATA` names the folder with the data sets. Prints two tables for `results/audit/README.md`.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import PATTERNS
from PIL import Image, ImageEnhance, ImageOps

from anomalib_medical.data import make_medical_folder_dataset
from anomalib_medical.data.duplicates import find_duplicates
from anomalib_medical.data.fingerprints import Fingerprint, fingerprint_all

COPIES = 100


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress and read again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut shares of width and height off the four sides."""
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))


def mix(image: Image.Image) -> Image.Image:
    """Smaller, brighter, more contrast, compressed."""
    small = image.resize((int(image.width * 0.6), int(image.height * 0.6)), Image.Resampling.BICUBIC)
    return jpeg(ImageEnhance.Contrast(ImageEnhance.Brightness(small).enhance(1.1)).enhance(1.1), 60)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 50": lambda image: jpeg(image, 50),
    "darker by 10%": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "smaller to 60%, brighter, contrast + 10%, JPEG 60": mix,
    "mirrored, JPEG 70": lambda image: jpeg(ImageOps.mirror(image), 70),
    "cropped by 2% a side": lambda image: crop(image, 0.02, 0.02, 0.02, 0.02),
    "cropped by 4% a side": lambda image: crop(image, 0.04, 0.04, 0.04, 0.04),
    "5% off one side": lambda image: crop(image, 0.05, 0, 0, 0),
}


def readable(paths: list[str]) -> list[Fingerprint]:
    """Take fingerprints of images that can all be read."""
    records = fingerprint_all(paths, progress=False)
    return [record for record in records if isinstance(record, Fingerprint)]


def recall(originals: list[Fingerprint], change: Callable[[Image.Image], Image.Image]) -> float:
    """Return the share of changed copies that are paired with their originals."""
    chosen = np.random.default_rng(0).choice(len(originals), min(COPIES, len(originals)), replace=False)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for row in chosen:
            image = Image.open(originals[row].path)
            path = Path(folder, f"{row:05d}.png")
            change(image if image.mode == "L" else image.convert("RGB")).save(path)
            paths.append(str(path))
        copies = readable(paths)
    parts = ["original"] * len(originals) + ["copy"] * len(copies)
    pairs = {(pair.first, pair.second) for pair in find_duplicates([*originals, *copies], parts, progress=False)}
    return sum((int(row), len(originals) + number) in pairs for number, row in enumerate(chosen)) / len(chosen)


def main() -> None:
    """Print both tables, a row a set."""
    root = Path(os.environ["ANOMALIB_MEDICAL_DATA"])
    print(f"| set | {' | '.join(CHANGES)} |\n|---|{'---|' * len(CHANGES)}")
    counts = []
    for name, pattern in PATTERNS.items():
        samples = make_medical_folder_dataset(root / name, patient_pattern=pattern)
        samples = samples[samples.split.isin(["train", "test"])].reset_index(drop=True)
        originals = readable(list(samples.image_path))
        shares = [f"{recall(originals, change):.2f}" for change in CHANGES.values()]
        print(f"| {name} | {' | '.join(shares)} |", flush=True)
        patients = samples.patient_id
        pairs = find_duplicates(originals, progress=False)
        same = sum(patients[pair.first] == patients[pair.second] for pair in pairs)
        across = f"{len(pairs) - same}" if pattern else f"{len(pairs)} (patients unknown)"
        counts.append(
            f"| {name} | {len(originals) * (len(originals) - 1) // 2} | {same if pattern else ''} | {across} |"
        )
    print("\n| set | pairs compared | called copies within a patient | across patients |\n|---|---|---|---|")
    print("\n".join(counts))


if __name__ == "__main__":
    main()
