"""The support of a new task: which normal images it takes, and which others its threshold comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from pandas import DataFrame

from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.entries import NORMAL_CLASS, Entry, build_samples, find_patients
from anomalib_medical.data.folder.datamodule import MedicalFolder, report_samples
from anomalib_medical.data.folder.folder_tree import list_tree
from anomalib_medical.data.images import AnyWindow, list_normals, read_image, refuse_repeated
from anomalib_medical.data.samples import take_left_out, with_left_out
from anomalib_medical.io import ImageAddress, Listing, counted, list_folder, on_disk

SUPPORT = "support"


class SupportedFolder(MedicalFolder):
    """A task with a folder ``support/``: all that is learnt of it, whether or not it has a ``train/``."""

    def _setup(self, _stage: str | None = None) -> None:
        folder = on_disk(self.root / SUPPORT)
        support, tree = list_folder(folder), list_tree(self.root, needs_normals=False)
        require_normals(self.root.name, len(support.images), 1, f"the support in {folder}", support)
        entries = [Entry(ImageAddress(path), "train", NORMAL_CLASS, base=folder) for path in support.images]
        entries += [entry for entry in tree.entries if entry.split == "test"]
        # Of support and test together: an issuer of ids counts only where all files name one.
        find_patients(entries, self.root, self.patient_pattern)
        samples = build_samples(entries, mask_rule=self.mask_rule)
        report_samples(samples, tree.unused_masks)
        self.left_out = take_left_out(with_left_out(samples, tree.listing + support, str(self.root)))
        data = MedicalDataset(window=self.window, mask_rule=self.mask_rule)
        data.samples = samples
        tested = data.samples.split == "test"
        self.train_data = data.subsample(list(np.flatnonzero(~tested)))
        if tested.any():
            self.test_data = data.subsample(list(np.flatnonzero(tested)))


def require_normals(task: str, count: int, needed: int, what: str, listing: Listing | None = None) -> None:
    """Refuse a task with fewer than the needed normal images."""
    if count < needed:
        msg = f"The task {task} has {counted(count, 'normal image')}, expected at least {needed} for {what}."
        raise ValueError(f"{msg} {listing.left_out() if listing else ''}".strip())


def draw_support(normals: DataFrame, shots: int, seed: int) -> DataFrame:
    """Draw K normal images, of different patients as long as there are any.

    Args:
        normals: The table to draw from, with image_path and patient_id.
        shots: K.
        seed: Another seed, another support; the order of the table does not matter.
    """
    rng = np.random.default_rng(seed)
    shuffled = normals.sort_values("image_path").iloc[rng.permutation(len(normals))]
    # First one image of every patient, then the second ones.
    turn = shuffled.groupby("patient_id", sort=False).cumcount()
    support = shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:shots]].reset_index(drop=True)
    support.attrs = dict(normals.attrs)
    return support


def one_a_patient(normals: DataFrame, shots: int, seed: int) -> DataFrame:
    """Keep one image of each patient, or all images where that leaves fewer than a support."""
    patients = normals.patient_id.nunique()
    return normals if patients < shots else draw_support(normals, patients, seed)


def read_normals(
    normals: str | Path | AnomalibDataModule, support: Mapping[str, Any], window: AnyWindow = None
) -> Iterator[torch.Tensor]:
    """Read held-out normal images of a task, to take its threshold from: ``model.recalibrate(read_normals(...))``.

    Args:
        normals: A folder, or a datamodule of the task: its validation set's normal images.
        support: The model's ``support_record``, which must not be among them.
        window: Which values of a folder's DICOM and NIfTI files become black and white.

    Returns:
        Each ``(3, H, W)`` in [0, 1].

    Raises:
        ValueError: If there are none, they are of other tasks, or support images are among them.
    """
    if isinstance(normals, str | Path):
        addresses = list_normals(normals, "The folder of normal images")
    else:
        normals.prepare_data()
        normals.setup()
        samples = normals.val_data.samples
        name = type(normals).__name__
        if "task" in samples:
            msg = (
                f"{name} validates on other tasks than the target's: give a folder of held-out normal images of the "
                "target, or a MedicalFolder of it."
            )
            raise ValueError(msg)
        addresses = [ImageAddress.parse(path) for path in samples[samples.label_index == 0].image_path]
        window = getattr(normals, "window", None)
        if not addresses:
            msg = f"The validation set of {name} has 0 normal images, expected at least 1."
            raise ValueError(msg)
    refuse_repeated(support, addresses, "normal images to calibrate with")
    return (read_image(address, window) for address in addresses)
