"""Published datasets: what is known of them, and the papers' protocol or the patient-safe and deduplicated one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.clean import drop_leaks, merge_copies
from anomalib_medical.data.download import Archive
from anomalib_medical.data.published.layouts import NO_SPLIT, find_prepared, read_data_json
from anomalib_medical.data.samples import UNLABELED, divide_patients
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted

logger = logging.getLogger(__name__)

Protocol = Literal["clean", "published"]
_SHOWN = 10


@dataclass(frozen=True)
class PublishedCounts:
    """Images of each part in the papers."""

    train: int
    test_normal: int
    test_abnormal: int
    unlabeled_normal: int = 0
    unlabeled_abnormal: int = 0

    @classmethod
    def of(cls, samples: DataFrame) -> PublishedCounts:
        """Count what a table has."""
        kinds = list(zip(samples.split, samples.label_index, strict=True))
        parts = (("train", 0), ("test", 0), ("test", 1), (UNLABELED, 0), (UNLABELED, 1))
        return cls(*map(kinds.count, parts))

    def __str__(self) -> str:
        """Say the counts in words."""
        text = f"train {self.train}, test {self.test_normal} normal + {self.test_abnormal} abnormal"
        if self.unlabeled_normal + self.unlabeled_abnormal:
            text += f", unlabeled {self.unlabeled_normal} normal + {self.unlabeled_abnormal} abnormal"
        return text


@dataclass(frozen=True)
class PublishedSet:
    """A published dataset."""

    name: str  # of its datamodule
    title: str
    url: str  # of the page that describes it
    licence: str
    access: str  # account, request, plain download
    tree: str  # the expected files, one a line, below ``<root>``
    # Of each of these groups of files and folders one is there, where the dataset lies as its authors publish it.
    original: Sequence[Sequence[str]]
    counts: PublishedCounts
    # Names that the folder of images may have where it lies beside ``data.json``.
    prepared: Sequence[str] = ("images",)
    no_split: str = ""  # why the original files have no published split, and where that is
    archives: Sequence[Archive] = ()  # what needs no account; unpacked into the root

    def is_in(self, root: Path) -> bool:
        """Whether a folder holds the dataset in a layout that is understood."""
        return find_prepared(root, self.prepared) is not None or self._is_original(root)

    def samples_in(self, root: Path, list_original: Callable[[Path], DataFrame]) -> DataFrame:
        """List the images that ``data.json`` names where it is, and those that `list_original` finds where not.

        Raises:
            FileNotFoundError: If the dataset is not there; the message says where to get it.
        """
        if images := find_prepared(root, self.prepared):
            return read_data_json(images)
        if not self._is_original(root):
            raise self.not_found(root)
        return list_original(root)

    def not_found(self, root: Path) -> FileNotFoundError:
        """Build the error for a root without the dataset."""
        download = "\nOr let us download it, if you accept its licence: set download=true." if self.archives else ""
        return FileNotFoundError(
            f"{self.title} is not in {root}: {_describe(root)}\n"
            f"Source: {self.url}\nLicence: {self.licence}\nHow to get it: {self.access}{download}\n"
            f"Expected:\n{self.tree.strip()}"
        )

    def _is_original(self, root: Path) -> bool:
        return all(first_there(root, names).exists() for names in self.original)


def first_there(root: Path, names: Sequence[str]) -> Path:
    """Return the first of some files and folders that exists, or just the first."""
    paths = [root / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def _describe(root: Path) -> str:
    if not root.exists():
        return "there is no such folder."
    if not root.is_dir():
        return "it is a file, expected a folder."
    names = sorted(child.name for child in root.iterdir())
    if not names:
        return "the folder is empty."
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"found only {', '.join(names[:_SHOWN])}{more}."


def require_protocol(protocol: str) -> None:
    """Refuse an unknown protocol."""
    if protocol not in get_args(Protocol):
        msg = f"protocol is {protocol!r}, expected one of {', '.join(get_args(Protocol))}."
        raise ValueError(msg)


def apply_protocol(
    samples: DataFrame, about: PublishedSet, protocol: Protocol, *, deduplicate: bool, seed: int
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
        about: The dataset.
        protocol: ``"clean"`` or ``"published"``.
        deduplicate: Whether near-duplicates count as one patient (``"clean"`` only).
        seed: Decides the split where the files have none.

    Returns:
        The table that `MedicalDataset` reads from, with all its columns and ``attrs["task"]``.

    Raises:
        MedicalError: If ``"published"`` cannot be had, or all images are of one patient.
        ValueError: If the protocol is unknown.
    """
    require_protocol(protocol)
    # In an order that does not depend on the files' order.
    samples = samples.sort_values("image_path", ignore_index=True).assign(known_normal=True)
    for column in ("mask_path", "boxes"):
        if column not in samples:
            samples[column] = ""
    undecided = bool((samples.split == NO_SPLIT).any())
    if protocol == "published":
        found = PublishedCounts.of(samples)
        if undecided or found != about.counts:
            wrong = f"found {found}; the papers have {about.counts}."
            if undecided:
                wrong = f"these files have no split. {about.no_split}".strip()
            msg = (
                f"protocol=published of {about.name} is not possible with what is on disk: {wrong} Complete the data, "
                "or use protocol=clean, which takes what is there and keeps patients apart."
            )
            raise MedicalError(msg)
        _warn_of_shared_patients(about.name, samples)
    else:
        patients, copies = merge_copies(samples) if deduplicate else (list(samples.patient_id), None)
        samples = samples.assign(patient_id=patients)
        if undecided:
            samples = samples.assign(split=_divide(samples, about, seed))
        samples = drop_leaks(samples, copies, about.name)
    masked = bool(((samples.mask_path != "") | (samples.boxes != "")).any())
    samples.attrs["task"] = "segmentation" if masked else "classification"
    return samples


def _divide(samples: DataFrame, about: PublishedSet, seed: int) -> list[str]:
    """Divide by patient, in the papers' proportions."""
    if samples.patient_id.nunique() < 2:
        msg = f"{about.name}: one patient has all images ({len(samples)}), so that they cannot be divided into parts."
        raise MedicalError(msg)
    counts = about.counts
    normals = counts.train + counts.test_normal + counts.unlabeled_normal
    return divide_patients(
        list(samples.patient_id),
        list(samples.label_index == LabelName.ABNORMAL),
        test_normal_share=counts.test_normal / normals,
        test_abnormal_share=counts.test_abnormal / (counts.test_abnormal + counts.unlabeled_abnormal),
        unlabeled_share=counts.unlabeled_normal / (counts.train + counts.unlabeled_normal),
        seed=seed,
    )


def _warn_of_shared_patients(name: str, samples: DataFrame) -> None:
    tested = set(samples[samples.split == "test"].patient_id)
    for part in ("train", UNLABELED):
        if shared := len(tested.intersection(samples[samples.split == part].patient_id)):
            logger.warning(
                "LEAK: in the published split of %s %s %s images in %s and in test; results will flatter.",
                name,
                counted(shared, "patient"),
                agree(shared, "has", "have"),
                part,
            )
