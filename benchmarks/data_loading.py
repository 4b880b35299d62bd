"""Measure how many images per second the data modules load: ours beside anomalib's Folder, then DICOM and NIfTI.

    python benchmarks/data_loading.py

Both read the same files through their training loaders, with the same transform and batch size. They take turns (A B,
B A, ...), so that a machine that slows down slows both; the tables show medians over the repeats and the median of the
ratios within each repeat. All files are written to a temporary folder and lie in the system's page cache when the
clock starts. ANOMALIB_MEDICAL_DATA adds real images to the generated ones.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anomalib
import imagecodecs
import nibabel
import numpy as np
import PIL
import pydicom
import torch
from anomalib.data import Folder
from generated_files import save_dicom, texture
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomalib_medical.data import MedicalFolder
from anomalib_medical.io import image_size, nifti_voxels

RESULTS = Path(__file__).resolve().parent / "results"
REAL_SETS = ("brain_flair", "chest_xray", "skin")
WORKERS = (0, 1)
VOLUMES = 4
SLICES = 64


def main() -> None:
    """Run the command line."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    args = _parse()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        comparison = [_compare(*item, args) for item in _raster_sets(folder, args.images)]
        medical = [_rate(*item, args) for item in _medical_sets(folder, args.images)]
    report = _report([row for rows in comparison for row in rows], [row for rows in medical for row in rows], args)
    print(report)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(report, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=400, help="images of each kind; a quarter of them as DICOM, which takes longer"
    )
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the loading process")
    parser.add_argument("--out", type=Path, default=RESULTS / "data_loading.md")
    return parser.parse_args()


# Files


def _raster_sets(folder: Path, images: int) -> Iterable[tuple[str, Path]]:
    for suffix, colours in ((".png", 1), (".png", 3), (".jpg", 1), (".jpg", 3)):
        root = folder / f"{colours}{suffix}"
        _write(root, images, suffix, partial(_save_raster, colours=colours))
        yield f"{suffix[1:].upper()}, 512x512 {'grey' if colours == 1 else 'colour'}, generated", root
    data = os.environ.get("ANOMALIB_MEDICAL_DATA")
    for name in REAL_SETS if data else ():
        files = sorted((Path(str(data)) / name / "train" / "good").iterdir())[:images]
        target = folder / name / "train" / "good"
        target.mkdir(parents=True)
        for file in files:
            shutil.copy(file, target)
        height, width = image_size(files[0])
        yield f"{files[0].suffix[1:].upper()}, {height}x{width}, {name}", folder / name


def _medical_sets(folder: Path, images: int) -> Iterable[tuple[str, Path]]:
    for syntax, label in ((ExplicitVRLittleEndian, "uncompressed"), (JPEG2000Lossless, "JPEG 2000 lossless")):
        _write(folder / syntax, images // 4, ".dcm", partial(save_dicom, syntax=syntax))
        yield f"DICOM, 512x512, 12 of 16 bits, {label}", folder / syntax
    for suffix in (".nii", ".nii.gz"):
        _write(folder / suffix, VOLUMES + 1, suffix, _save_volume)
        yield f"NIfTI, {VOLUMES} volumes of 256x256x{SLICES} int16, {suffix}", folder / suffix


def _write(root: Path, count: int, suffix: str, save: Callable[[Path, int], None]) -> None:
    folder = root / "train" / "good"
    folder.mkdir(parents=True)
    for index in range(count):
        save(folder / f"{index:04}{suffix}", index)


def _save_raster(path: Path, seed: int, colours: int) -> None:
    pixels = np.stack([texture((512, 512), seed * 3 + colour, 255) for colour in range(colours)], axis=-1)
    Image.fromarray(pixels.astype(np.uint8).squeeze()).save(path)


def _save_volume(path: Path, seed: int) -> None:
    voxels = texture((256, 256, SLICES), seed, 2000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


# Measurements


def _seconds(loader: DataLoader[Any], images: int) -> float:
    """Return the seconds per image of one epoch."""
    started = time.perf_counter()
    found = sum(batch.batch_size for batch in loader)
    seconds = time.perf_counter() - started
    if found != images:
        msg = f"The loader gave {found} images, expected {images}."
        raise RuntimeError(msg)
    return seconds / found


def _ours(root: Path, workers: int, args: argparse.Namespace) -> MedicalFolder:
    # One image (one volume) is held out for validation, as there must be; anomalib's module keeps it.
    data = MedicalFolder(
        root,
        train_batch_size=args.batch_size,
        num_workers=workers,
        train_augmentations=Resize((256, 256), antialias=False),
        val_split_ratio=1e-9,
    )
    data.setup()
    return data


def _theirs(root: Path, workers: int, args: argparse.Namespace) -> Folder:
    data = Folder(
        name="files",
        root=root,
        normal_dir="train/good",
        train_batch_size=args.batch_size,
        num_workers=workers,
        train_augmentations=Resize((256, 256), antialias=False),
        test_split_mode="none",
        val_split_mode="none",
    )
    data.setup()
    return data


def _compare(label: str, root: Path, args: argparse.Namespace) -> list[str]:
    rows = []
    for workers in WORKERS:
        loaders = [
            (data.train_dataloader(), len(data.train_data))
            for data in (_ours(root, workers, args), _theirs(root, workers, args))
        ]
        for loader in loaders:
            _seconds(*loader)
        times: list[list[float]] = [[], []]
        for repeat in range(args.repeats):
            for index in (0, 1) if repeat % 2 == 0 else (1, 0):
                times[index].append(_seconds(*loaders[index]))
        ours, theirs = (1 / statistics.median(each) for each in times)
        ratios = [b / a for a, b in zip(*times, strict=True)]
        rows.append(
            f"| {label} | {workers} | {ours:.0f} | {theirs:.0f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
        print(rows[-1], flush=True)
    return rows


def _rate(label: str, root: Path, args: argparse.Namespace) -> list[str]:
    """Measure epochs in order and shuffled, of a process that has read nothing yet and of one that has."""
    rows = []
    for workers in WORKERS:
        data = _ours(root, workers, args).train_data
        rates = []
        for shuffle in (False, True):
            loader = DataLoader(data, args.batch_size, shuffle=shuffle, num_workers=workers, collate_fn=data.collate_fn)
            first, later = [], []
            for _ in range(max(3, args.repeats // 2)):
                nifti_voxels.cache.clear()
                nifti_voxels.robust_range.cache_clear()
                first.append(_seconds(loader, len(data)))
                later.append(_seconds(loader, len(data)))
            rates += [1 / statistics.median(first), 1 / statistics.median(later)]
        rows.append(f"| {label} | {workers} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |")
        print(rows[-1], flush=True)
    return rows


def _report(comparison: list[str], medical: list[str], args: argparse.Namespace) -> str:
    modules = (anomalib, torch, np, PIL, imagecodecs, nibabel, pydicom)
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    return f"""# Images per second

    python benchmarks/data_loading.py --images {args.images} --batch_size {args.batch_size} --repeats {args.repeats} \
--threads {args.threads}

{os.cpu_count()} {platform.machine()} cores; Python {platform.python_version()},
{versions}.
Every image is resized to 256x256 without antialiasing. With 0 workers the training process itself loads. Starting the
workers is part of an epoch's time, which weighs more on these short epochs than on real ones.

## Our MedicalFolder beside anomalib's Folder

Medians of {args.repeats} interleaved epochs; the ratio is the median (smallest to largest) of those within each pair,
above 1 where ours is faster.

| files | workers | ours, images/s | anomalib, images/s | ratio |
|---|---|---|---|---|
{chr(10).join(comparison)}

## DICOM and NIfTI through MedicalFolder

{args.images // 4} DICOM files. In order of the files, and shuffled: the first epoch of a process, and the one after it.
Workers are started anew for every epoch, so that theirs is a first one each time.

| files | workers | in order, first | in order, later | shuffled, first | shuffled, later |
|---|---|---|---|---|---|
{chr(10).join(medical)}
"""


if __name__ == "__main__":
    main()
