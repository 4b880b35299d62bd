"""Small copies of published datasets' layouts, filled with noise; no one of the real files was at hand."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_medical.data.published.dataset import PublishedCounts

ISIC_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def write_image(path: Path, size: int = 32) -> Path:
    """Write smooth colour noise that its path decides, so that no two images look alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode()))
    coarse = rng.integers(0, 256, (size // 2, size // 2, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR).save(path)
    return path


def write_prepared(
    root: Path, counts: PublishedCounts, suffix: str = ".png", size: int = 32, folder: str = "images"
) -> Path:
    """Write ``data.json`` and its images, numbered: `train_`, `test_0_`, `test_1_`, `unlabeled_0_`, `unlabeled_1_`."""

    def images(part: str, count: int) -> list[str]:
        names = [f"{part}_{number}{suffix}" for number in range(count)]
        for name in names:
            write_image(root / folder / name, size)
        return names

    unlabeled = {
        "0": images("unlabeled_0", counts.unlabeled_normal),
        "1": images("unlabeled_1", counts.unlabeled_abnormal),
    }
    content = {
        "train": {"0": images("train", counts.train), "unlabeled": unlabeled},
        "test": {"0": images("test_0", counts.test_normal), "1": images("test_1", counts.test_abnormal)},
    }
    (root / "data.json").write_text(json.dumps(content))
    return root


def write_brain_tumor_mri(root: Path, count: int = 4, size: int = 32) -> Path:
    """Write Kaggle's folders, ``count`` images a class and part."""
    for part, short in (("Training", "Tr"), ("Testing", "Te")):
        for folder, kind in (("notumor", "no"), ("glioma", "gl"), ("meningioma", "me"), ("pituitary", "pi")):
            for number in range(count):
                write_image(root / part / folder / f"{short}-{kind}_{number:04d}.jpg", size)
    return root


def write_lag(root: Path, count: int = 6, size: int = 32) -> Path:
    """Write the authors' folders, ``count`` images a class, each with a map and a label file."""
    for start, folder, label in ((0, "non_glaucoma", "0"), (count, "suspicious_glaucoma", "1")):
        for number in range(start, start + count):
            write_image(root / folder / "image" / f"{number:04d}.jpg", size)
            write_image(root / folder / "attention_map" / f"{number:04d}.jpg", size)
            text = root / folder / "label" / f"{number:04d}.txt"
            text.parent.mkdir(exist_ok=True)
            text.write_text(f"{label}\n")
    return root


def write_aptos2019(root: Path, grades: Sequence[int] = (0, 0, 0, 0, 0, 0, 1, 2, 3, 4), size: int = 32) -> Path:
    """Write the competition's training set, one image a grade given."""
    names = [f"{number:012x}" for number in range(len(grades))]
    for name in names:
        write_image(root / "train_images" / f"{name}.png", size)
    rows = [f"{name},{grade}" for name, grade in zip(names, grades, strict=True)]
    (root / "train.csv").write_text("\n".join(["id_code,diagnosis", *rows]) + "\n")
    return root


def write_isic2018(
    root: Path,
    train: Sequence[str] = ("NV", "NV", "NV", "NV", "NV", "NV", "MEL", "BCC"),
    test: Sequence[str] = ("NV", "NV", "MEL", "VASC"),
    size: int = 32,
) -> Path:
    """Write the challenge's folders, one image a diagnosis given; two training images after each other are a lesion."""
    numbers = iter(range(len(train) + len(test)))
    for part, diagnoses in (("Training", train), ("Test", test)):
        lines = [",".join(("image", *ISIC_CLASSES))]
        for diagnosis in diagnoses:
            name = f"ISIC_{next(numbers):07d}"
            write_image(root / f"ISIC2018_Task3_{part}_Input" / f"{name}.jpg", size)
            lines.append(",".join((name, *(str(float(kind == diagnosis)) for kind in ISIC_CLASSES))))
        (root / f"ISIC2018_Task3_{part}_GroundTruth.csv").write_text("\n".join(lines) + "\n")
    lesions = [f"ISIC_{number:07d},HAM_{number // 2:07d},histopathology" for number in range(len(train))]
    file = root / "ISIC2018_Task3_Training_LesionGroupings.csv"
    file.write_text("\n".join(["image,lesion_id,diagnosis_confirm_type", *lesions]) + "\n")
    return root


def write_camelyon16(root: Path, count: int = 6, size: int = 32) -> Path:
    """Write BMAD's folders as its page shows those of mask-less sets."""
    for folder in ("train/good", "valid/good", "valid/Ungood", "test/good", "test/Ungood"):
        for number in range(count):
            write_image(root / folder / f"{1000 + number}.png", size)
    return root


def write_anomalib_bmad(
    root: Path, count: int = 6, size: int = 32, category: str = "Histopathology", name: str = "{}"
) -> Path:
    """Write BMAD's folders as anomalib's own ``BMAD`` reads them, the set below the root.

    ``name`` is of the files, with the image's number in its place: from 1000 on, in each part anew.
    """
    for folder in ("train/good", "valid/good/img", "valid/Ungood/img", "test/good/img", "test/Ungood/img"):
        for number in range(count):
            write_image(root / category / folder / f"{name.format(1000 + number)}.png", size)
    return root


# Datamodule: its original layout. The prepared layout is one for all.
ORIGINALS: dict[str, Callable[..., Path]] = {
    "BrainTumorMRI": write_brain_tumor_mri,
    "ISIC2018": write_isic2018,
    "LAG": write_lag,
    "APTOS2019": write_aptos2019,
    "Camelyon16": write_camelyon16,
}
