"""Small trees in the layouts of RSNA and VinDr-CXR, with noise for images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_medical.data.published.dataset import PublishedCounts
from tests.helpers.dicom_files import write_dicom
from tests.helpers.published_trees import write_prepared

RSNA_FOLDER = "stage_2_train_images"
RSNA_BOXES = "stage_2_train_labels.csv"
RSNA_CLASSES = "stage_2_detailed_class_info.csv"
RSNA_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def noise(index: int, size: int = 64) -> np.ndarray:
    """A noisy image of 8 bits."""
    return np.random.default_rng(index).integers(0, 255, (size, size), dtype=np.uint8)


def write_png(path: Path, index: int, size: int = 64) -> Path:
    """Write a noisy PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(index, size)).save(path)
    return path


def make_rsna(root: Path, normal: int = 24, opaque: int = 8, other: int = 2) -> Path:
    """Write the challenge's layout; images are `n<number>`, `o<number>` (two boxes each) and `x<number>`."""
    boxes, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    names = [f"n{number}" for number in range(normal)] + [f"o{number}" for number in range(opaque)]
    for index, name in enumerate([*names, *(f"x{number}" for number in range(other))]):
        # As in the challenge's files, PatientID is the image's id.
        view = "PA" if name.startswith("n") else "AP"
        write_dicom(root / RSNA_FOLDER / f"{name}.dcm", noise(index), PatientID=name, ViewPosition=view)
        if name.startswith("o"):
            boxes += [f"{name},256.0,128.0,512.0,256.0,1", f"{name},0.0,0.0,64.0,64.0,1"]
            classes += [f"{name},Lung Opacity"] * 2
        else:
            boxes.append(f"{name},,,,,0")
            classes.append(f"{name},{'Normal' if name.startswith('n') else 'No Lung Opacity / Not Normal'}")
    (root / RSNA_BOXES).write_text("\n".join(boxes) + "\n")
    (root / RSNA_CLASSES).write_text("\n".join(classes) + "\n")
    return root


def write_mapping(root: Path, patients: dict[str, int]) -> Path:
    """Write RSNA's mapping: patient by image."""
    entries = [
        {"subset_img_id": image, "img_id": f"{patient:08d}_{number:03d}.png", "orig_labels": ["No Finding"]}
        for number, (image, patient) in enumerate(patients.items())
    ]
    file = root / RSNA_MAPPING
    file.write_text(json.dumps(entries))
    return file


def make_prepared(root: Path, folder: str = "images", size: int = 64) -> Path:
    """Write `data.json` and images."""
    return write_prepared(root, PublishedCounts(24, 4, 4, 6, 6), folder=folder, size=size)


def make_vindr(root: Path, normal: int = 24, found: int = 8, resized: bool = False) -> Path:
    """Write Kaggle's layout, each image read by three; in `f<number>` the first sees nothing, the others one box each.

    Resized, the images are PNGs of a quarter the width and half the height.
    """
    lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    sizes = ["image_id,dim0,dim1"]
    for index, name in enumerate([*(f"n{n}" for n in range(normal)), *(f"f{n}" for n in range(found))]):
        lines += [f"{name},No finding,14,R{reader},,,," for reader in range(1 if name.startswith("f") else 3)]
        if name.startswith("f"):
            lines += [f"{name},Cardiomegaly,3,R1,8,16,24,20", f"{name},Pleural effusion,10,R2,40.5,40,48,64"]
        sizes.append(f"{name},128,256")
        if resized:
            write_png(root / "train" / f"{name}.png", index)
        else:
            write_dicom(root / "train" / f"{name}.dicom", noise(index), PatientSex="F")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    if resized:
        (root / "train_meta.csv").write_text("\n".join(sizes) + "\n")
    return root
