"""The phantom on disk: written once, checked on every use, repaired where damaged."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from PIL import Image
from tqdm.auto import tqdm

from anomalib_medical.data.phantom.anatomy import Patient
from anomalib_medical.data.phantom.lesions import DIFFICULTIES, KINDS, add_lesion
from anomalib_medical.io import sha256

logger = logging.getLogger(__name__)

MANIFEST = "manifest.csv"
# Raise it with every change that alters a pixel: old caches are then left alone and new ones made.
VERSION = 1
SLICES_OF_A_PATIENT = 4
_ABANDONED_AFTER = 24 * 3600.0  # seconds; a temporary folder this old belongs to no running process


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides the phantom's bytes."""

    difficulty: str = "medium"  # a key of `DIFFICULTIES`
    image_size: int = 256  # width and height in pixels
    seed: int = 0  # another seed, other patients
    train: int = 200  # normal training images
    test_normal: int = 50
    test_abnormal: int = 50  # test images with a lesion

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        if self.difficulty not in DIFFICULTIES:
            msg = f"difficulty is {self.difficulty!r}, expected one of {', '.join(DIFFICULTIES)}."
            raise ValueError(msg)
        if not 64 <= self.image_size <= 2048:
            msg = f"image_size is {self.image_size}, expected 64 to 2048 pixels."
            raise ValueError(msg)
        if self.train < 1 or min(self.test_normal, self.test_abnormal, self.seed) < 0:
            msg = (
                f"Got {self.train} training, {self.test_normal} normal and {self.test_abnormal} abnormal test images "
                f"and seed {self.seed}: expected at least one training image and nothing negative."
            )
            raise ValueError(msg)

    @property
    def folder_name(self) -> str:
        """Name of the cache folder; it changes with everything that decides the bytes."""
        content = json.dumps([VERSION, asdict(self), asdict(DIFFICULTIES[self.difficulty])], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"{self.difficulty}-{self.image_size}-{self.seed}-v{VERSION}-{digest}"


def ensure_phantom(root: str | Path, spec: PhantomSpec) -> Path:
    """Return the folder of a complete phantom below a root, making or repairing it where needed.

    It is made in a temporary folder and renamed, so that other processes see all of it or nothing. Two processes
    that start at once both make it, and one of the two equal results stays. Files that are not ours are never removed.

    Raises:
        PermissionError: If ``root`` is not writable and holds no such phantom.
    """
    folder = Path(root) / spec.folder_name
    if is_complete(folder):
        return folder
    if folder.exists():
        logger.warning("The phantom in %s is damaged or incomplete: making it again.", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        msg = (
            f"Cannot write the phantom images into {folder.parent.resolve()} ({error.strerror or error}). Give a "
            "folder that is writable (root=... of Phantom, --data.root on the command line), or make the "
            f"images elsewhere and copy the folder {folder.name} there."
        )
        raise PermissionError(msg) from error
    try:
        # mkdtemp makes it private, but a data folder may be shared.
        temporary.chmod(0o755)
        _write(temporary, spec)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def is_complete(folder: Path) -> bool:
    """Tell whether every file that the manifest lists is there, byte for byte, and the manifest itself is whole."""
    try:
        rows = read_manifest(folder)
        return all(sha256(folder / name) == digest for row in rows for name, digest in _listed_files(row))
    except (OSError, ValueError, KeyError):
        return False


def read_manifest(folder: Path) -> list[dict[str, str]]:
    """Read the manifest's rows; a ValueError if it is damaged."""
    content, _, end = (folder / MANIFEST).read_text(encoding="utf-8").rpartition("# sha256 ")
    if not content or hashlib.sha256(content.encode()).hexdigest() != end.strip():
        msg = f"{folder / MANIFEST} is damaged."
        raise ValueError(msg)
    return list(csv.DictReader(content.splitlines()))


def _listed_files(row: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield row["file"], row["sha256"]
    if row["mask"]:
        yield row["mask"], row["mask_sha256"]


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process was first, or the old one is damaged: replace file by file, the manifest last.
        rows = read_manifest(temporary)
        for name in [*(name for row in rows for name, _ in _listed_files(row)), MANIFEST]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(folder / name)


def _remove_abandoned(folder: Path) -> None:
    for path in folder.parent.glob(f".{folder.name}-*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
            shutil.rmtree(path, ignore_errors=True)


def _plan(spec: PhantomSpec) -> list[tuple[str, str, int, int]]:
    """List (split, kind, patient, slice).

    Each test patient has normal and abnormal slices, so that no patient's looks give a label away.
    """
    kinds = list(KINDS)
    plan = [("train", "good", index // SLICES_OF_A_PATIENT, index % SLICES_OF_A_PATIENT) for index in range(spec.train)]
    first = -(-spec.train // SLICES_OF_A_PATIENT)
    half = SLICES_OF_A_PATIENT // 2
    plan += [("test", "good", first + index // half, index % half) for index in range(spec.test_normal)]
    plan += [
        ("test", kinds[index % len(kinds)], first + index // half, half + index % half)
        for index in range(spec.test_abnormal)
    ]
    return plan


@lru_cache(maxsize=64)
def _patient(seed: int, number: int, image_size: int) -> Patient:
    return Patient(np.random.default_rng([seed, number]), image_size)


def _render(
    spec: PhantomSpec, kind: str, patient: int, slice_number: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Draw one image (H, W) and its mask; each depends on nothing but its own numbers."""
    anatomy = _patient(spec.seed, patient, spec.image_size)
    # Separate sources: with and without its lesion a slice has the same anatomy and noise.
    anatomy_rng, lesion_rng, noise_rng = (
        np.random.default_rng([spec.seed, patient, slice_number, source]) for source in (1, 2, 3)
    )
    healthy = anatomy.slice(anatomy_rng)
    if kind == "good":
        return anatomy.scan(healthy.tissue, noise_rng), None
    tissue, mask = add_lesion(kind, healthy, DIFFICULTIES[spec.difficulty], lesion_rng)
    return anatomy.scan(tissue, noise_rng), mask


def _write(folder: Path, spec: PhantomSpec) -> None:
    rows = []
    for split, kind, patient, slice_number in tqdm(
        _plan(spec), desc=f"Phantom ({spec.difficulty})", unit="image", disable=None
    ):
        image, mask = _render(spec, kind, patient, slice_number)
        name = f"p{patient:04d}_s{slice_number}.png"
        row = {"file": f"{split}/{kind}/{name}", "split": split, "label": "normal" if mask is None else "abnormal"}
        row |= {"kind": kind, "patient": f"p{patient:04d}", "lesion_area": "0", "mask": ""}
        row |= {"sha256": _save(folder / row["file"], image), "mask_sha256": ""}
        if mask is not None:
            row |= {"lesion_area": str(int(mask.sum())), "mask": f"ground_truth/{kind}/{name}"}
            row["mask_sha256"] = _save(folder / row["mask"], mask.astype(np.uint8) * 255)
        rows.append(row)
    content = DataFrame(rows).to_csv(index=False, lineterminator="\n")
    digest = hashlib.sha256(content.encode()).hexdigest()
    (folder / MANIFEST).write_bytes(f"{content}# sha256 {digest}\n".encode())


def _save(path: Path, pixels: NDArray[np.uint8]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return sha256(path)
