"""Published datasets: the papers' protocol, or the patient-safe and deduplicated one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

from anomalib.data.utils import LabelName
from pandas import DataFrame
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.clean import drop_leaks, merge_copies
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.samples import UNLABELED, divide_patients
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Window, agree, counted

logger = logging.getLogger(__name__)

Protocol = Literal["clean", "published"]
NO_SPLIT = ""


class ProtocolError(MedicalError, ValueError):
    """What is on disk cannot give the protocol asked for."""


@dataclass(frozen=True)
class PublishedCounts:
    """Images of each part in the papers.

    Attributes:
        train: Known normals.
        test_normal: Normal test images.
        test_abnormal: Abnormal test images.
        unlabeled_normal: Normal images of the unlabeled pool.
        unlabeled_abnormal: Abnormal images of the unlabeled pool.
    """

    train: int
    test_normal: int
    test_abnormal: int
    unlabeled_normal: int = 0
    unlabeled_abnormal: int = 0

    @classmethod
    def of(cls, samples: DataFrame) -> PublishedCounts:
        """Count what a table has."""
        kinds = list(zip(samples.split, samples.label_index, strict=True))
        return cls(
            train=kinds.count(("train", 0)),
            test_normal=kinds.count(("test", 0)),
            test_abnormal=kinds.count(("test", 1)),
            unlabeled_normal=kinds.count((UNLABELED, 0)),
            unlabeled_abnormal=kinds.count((UNLABELED, 1)),
        )

    def __str__(self) -> str:
        """Say the counts in words."""
        text = f"train {self.train}, test {self.test_normal} normal + {self.test_abnormal} abnormal"
        if self.unlabeled_normal + self.unlabeled_abnormal:
            text += f", unlabeled {self.unlabeled_normal} normal + {self.unlabeled_abnormal} abnormal"
        return text


class PublishedDataset(MedicalDataset):
    """A published dataset's table, as its ``make_<name>_dataset`` returned it.

    Args:
        samples: The table.
        name: Name of the dataset.
        augmentations: Augmentations of image and mask.
        window: Which values of DICOM files become black and white.
    """

    def __init__(
        self,
        samples: DataFrame,
        name: str,
        augmentations: Transform | None = None,
        window: Window | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations, window=window)
        self._name = name
        self.samples = samples

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self._name


def apply_protocol(
    samples: DataFrame,
    *,
    name: str,
    counts: PublishedCounts,
    protocol: Protocol,
    deduplicate: bool,
    seed: int,
    no_split: str = "",
) -> DataFrame:
    """Bring a dataset's images to the parts of a protocol.

    ``"published"`` keeps the images as they come and requires the papers' counts. ``"clean"`` makes the parts
    patient-disjoint and deduplicated: copies within a part are kept once, and images of the training set and of the
    unlabeled pool whose patient or copy is in the test are dropped. Without a split in the files it divides the
    patients in the papers' proportions.

    Args:
        samples: Columns image_path, split (``""`` where the files do not say), label, label_index, patient_id and,
            optionally, mask_path, boxes and ``meta_*``. patient_id must not depend on where the data lies (such as a
            path below the root, if nothing is known).
        name: The dataset, for messages.
        counts: The papers' counts.
        protocol: ``"clean"`` or ``"published"``.
        deduplicate: Whether near-duplicates count as one patient (``"clean"`` only).
        seed: Decides the split where the files have none.
        no_split: Why a layout has no published split, and where that is, for the error.

    Returns:
        The table that `MedicalDataset` reads from, with all its columns and ``attrs["task"]``.

    Raises:
        ProtocolError: If ``"published"`` cannot be had, or all images are of one patient.
        ValueError: If the protocol is unknown.
    """
    if protocol not in get_args(Protocol):
        msg = f"protocol is {protocol!r}, expected one of {', '.join(get_args(Protocol))}."
        raise ValueError(msg)
    samples = _complete(samples)
    undecided = bool((samples.split == NO_SPLIT).any())
    if protocol == "published":
        if undecided:
            raise _protocol_error(name, f"these files have no split. {no_split}".strip())
        found = PublishedCounts.of(samples)
        if found != counts:
            raise _protocol_error(name, f"found {found}; the papers have {counts}.")
        _warn_of_shared_patients(name, samples)
        return samples
    patients, copies = merge_copies(samples) if deduplicate else (list(samples.patient_id), None)
    samples = samples.assign(patient_id=patients)
    if undecided:
        samples = samples.assign(split=_divide(samples, name, counts, seed))
    return _with_task(drop_leaks(samples, copies, name))


def _complete(samples: DataFrame) -> DataFrame:
    """Add the columns that the dataset left out, in an order that does not depend on the files' order."""
    samples = samples.sort_values("image_path", ignore_index=True)
    for column in ("mask_path", "boxes"):
        if column not in samples:
            samples[column] = ""
    return _with_task(samples.assign(known_normal=True))


def _with_task(samples: DataFrame) -> DataFrame:
    masked = bool(((samples.mask_path != "") | (samples.boxes != "")).any())
    samples.attrs["task"] = "segmentation" if masked else "classification"
    return samples


def _divide(samples: DataFrame, name: str, counts: PublishedCounts, seed: int) -> list[str]:
    """Divide by patient, in the papers' proportions."""
    if samples.patient_id.nunique() < 2:
        msg = f"{name}: one patient has all images ({len(samples)}), so that they cannot be divided into parts."
        raise ProtocolError(msg)
    abnormal = [index == LabelName.ABNORMAL for index in samples.label_index]
    normals = counts.train + counts.test_normal + counts.unlabeled_normal
    abnormals = counts.test_abnormal + counts.unlabeled_abnormal
    return divide_patients(
        list(samples.patient_id),
        abnormal,
        test_normal_share=counts.test_normal / normals,
        test_abnormal_share=counts.test_abnormal / abnormals,
        unlabeled_share=counts.unlabeled_normal / (counts.train + counts.unlabeled_normal),
        seed=seed,
    )


def _warn_of_shared_patients(name: str, samples: DataFrame) -> None:
    tested = samples[samples.split == "test"].patient_id
    for part in ("train", UNLABELED):
        shared = set(samples[samples.split == part].patient_id) & set(tested)
        if shared:
            logger.warning(
                "LEAK: in the published split of %s %s %s images in %s and in test; results will flatter.",
                name,
                counted(len(shared), "patient"),
                agree(len(shared), "has", "have"),
                part,
            )


def _protocol_error(name: str, reason: str) -> ProtocolError:
    return ProtocolError(
        f"protocol=published of {name} is not possible with what is on disk: {reason} Complete the data, or use "
        "protocol=clean, which takes what is there and keeps patients apart."
    )
