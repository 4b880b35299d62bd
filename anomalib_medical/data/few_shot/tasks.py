"""Several tasks (organs, scanners): learn on all but one, see K normal images of that one, test on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Transform

from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.entries import NORMAL_CLASS, Entry, build_samples, find_patients
from anomalib_medical.data.few_shot.episodes import EpisodeDataset, EpisodeSampler
from anomalib_medical.data.folder.datamodule import MedicalFolder
from anomalib_medical.data.folder.folder_tree import list_tree
from anomalib_medical.data.images import read_image
from anomalib_medical.data.samples import take_left_out, with_left_out
from anomalib_medical.io import ImageAddress, Listing, MaskRule, agree, composed, counted, list_folder, on_disk

logger = logging.getLogger(__name__)

SUPPORT = "support"
EXPECTED_TREE = """Expected:
  <root>/<task>/train/good/*    normal images of each task
  <root>/<task>/test/good/*     normal test images    } at least of the target
  <root>/<task>/test/<class>/*  abnormal test images  }
  <root>/<task>/support/*       optional: the target's support, instead of a random one (it then needs no train/)
or tasks=[...], a list of datamodules."""


class FewShotTasks(MedicalDataModule):
    """Leave one task out: episodes of all others for training, K normals and the test set of the target.

    A training batch holds queries, each with K distinct normal images of its own task in ``support``: never the query
    itself, and never its patient where the task has enough others. They are drawn anew in every epoch. Of the target
    nothing but its support is seen before the test; its K images are its folder ``support/`` or drawn from its normal
    training images, of different patients where possible.

    Args:
        root: Folder of task folders, each as `MedicalFolder` reads it.
        target: The task that is left out and tested on.
        tasks: Datamodules, one a task, instead of ``root``; tasks have their names.
        shots: Normal images in each training episode's support.
        target_shots: Normal images in the target's support. Defaults to ``shots``.
        support_seed: Decides which images are the target's support.
        protocol: Only ``"clean"``: the split and the support sets of the few-shot paper are unreleased.
        image_size: Height and width of episodes where the model's pre-processor does not resize.
        patient_patterns: For each task of ``root``, the regular expression that finds the patient in a file's name.
        window: Which values of DICOM and NIfTI files become black and white, see `MedicalFolder`.
        mask_labels: Values of masks that are abnormal, of all tasks of ``root``; None for all that are not 0.
        mask_threshold: Values of masks above it are abnormal, instead.
        train_batch_size: Queries a training batch; each brings its support.
        eval_batch_size: Images a validation, test or predict batch.
        num_workers: Loading processes; None for up to four, one core left free.
        val_split_ratio: Share of the training tasks' images to hold out, by patient, for validation. None: a tenth, but
            20 where these are no more than a fifth.
        train_augmentations: Augmentations of training images, of queries and supports alike.
        val_augmentations: Augmentations of validation images.
        test_augmentations: Augmentations of test images.
        augmentations: Augmentations where the three above are not given.
        seed: Decides the episodes, and which patients are held out.
    """

    def __init__(
        self,
        target: str,
        root: str | Path | None = None,
        tasks: list[MedicalDataModule] | None = None,
        shots: int = 4,
        target_shots: int | None = None,
        support_seed: int = 0,
        protocol: Literal["clean", "published"] = "clean",
        image_size: int = 128,
        patient_patterns: dict[str, str] | None = None,
        window: str | tuple[float, float] | None = None,
        mask_labels: list[int] | None = None,
        mask_threshold: float | None = None,
        train_batch_size: int = 16,
        eval_batch_size: int = 16,
        num_workers: int | None = None,
        val_split_ratio: float | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_ratio=val_split_ratio,
            window=window,
            seed=seed,
        )
        if protocol != "clean":
            msg = (
                f"protocol is {protocol!r}: the few-shot paper's benchmark (13,084 images) and its support sets are "
                'unreleased, so nobody can repeat them. Use protocol="clean".'
            )
            raise ValueError(msg)
        if (root is None) == (tasks is None):
            msg = f"FewShotTasks needs either root (a folder of task folders) or tasks, got root={root}, tasks={tasks}."
            raise ValueError(msg)
        if tasks is not None and (mask_labels or mask_threshold is not None):
            msg = (
                "mask_labels and mask_threshold are of the tasks in root: give them to each of the given tasks instead."
            )
            raise ValueError(msg)
        target_shots = shots if target_shots is None else target_shots
        for name, value in (("shots", shots), ("target_shots", target_shots)):
            if value < 1:
                msg = f"{name} is {value}, expected at least 1 normal image."
                raise ValueError(msg)
        self.root = None if root is None else Path(root)
        self.target = composed(target)
        self.shots = shots
        self.target_shots = target_shots
        self.support_seed = support_seed
        self.image_size = image_size
        self.mask_rule = MaskRule.of(mask_labels, mask_threshold)
        self._given_tasks = tasks
        self._patient_patterns = {composed(task): pattern for task, pattern in (patient_patterns or {}).items()}
        self.support_data: MedicalDataset
        self.support_pool: DataFrame

    @property
    def name(self) -> str:  # type: ignore[override] # Lightning declares an attribute, anomalib makes it a property
        """Name of the target, after which results are filed."""
        return f"{type(self).__name__}_{self.target}"

    def prepare_data(self) -> None:
        """Get the data of the given tasks."""
        for task in self._given_tasks or ():
            task.prepare_data()

    def _setup(self, _stage: str | None = None) -> None:
        self.left_out = Listing()
        tasks = self._tasks()
        self._check_names(list(tasks))
        for name, task in tasks.items():
            if task.window != self.window:
                msg = (
                    f"The task {name} has the window {task.window}, FewShotTasks has {self.window}: query, support and "
                    "test must be read alike. Give window to FewShotTasks, and the same one to each of tasks."
                )
                raise ValueError(msg)
            # Only the normals and the test set are asked for: what would be held out of one task stays in.
            task._setup()  # noqa: SLF001
            self.left_out += task.left_out
        known = [_of_task(task.train_data.samples, name) for name, task in tasks.items() if name != self.target]
        for samples in known:
            self._check_count(samples.task.iloc[0], len(samples), self.shots + 1, "a query and its support")
        self.train_data = EpisodeDataset(
            pd.concat(known, ignore_index=True).assign(mask_path=""), (self.image_size, self.image_size), self.window
        )
        self.train_data.samples.attrs["task"] = "classification"
        self._setup_target(tasks[self.target])

    def _setup_target(self, target: MedicalDataModule) -> None:
        normals = _of_task(target.train_data.samples, self.target)
        if hasattr(target, "test_data"):
            self.test_data = target.test_data
            self.test_data.samples = _of_task(target.test_data.samples, self.target)
        support = self._support_folder()
        if support is None:
            if hasattr(self, "test_data"):
                # A support image of a tested patient would make that patient's images too easy.
                normals = normals[~normals.patient_id.isin(set(self.test_data.samples.patient_id))]
            self._check_count(self.target, len(normals), self.target_shots, "its support")
            support = draw_support(normals, self.target_shots, self.support_seed)
            self.support_pool = _one_a_patient(normals, self.target_shots, self.support_seed)
        else:
            self.support_pool = support
        self.support_data = target.train_data.subsample([0])
        self.support_data.samples = support
        self._refuse_tested_support()

    def _support_folder(self) -> DataFrame | None:
        """Return the target's own support if it has one: all images in it, whatever ``target_shots`` says."""
        folder = None if self.root is None else on_disk(self.root / self.target / SUPPORT)
        if folder is None or not folder.is_dir():
            return None
        listing = list_folder(folder)
        entries = [Entry(ImageAddress(path), SUPPORT, NORMAL_CLASS, base=folder) for path in listing.images]
        self._check_count(self.target, len(entries), 1, f"the support in {folder}", listing)
        self._find_patients(entries, folder.parent)
        self.left_out += listing
        return _of_task(with_left_out(build_samples(entries), listing, str(folder)), self.target)

    def _find_patients(self, support: Sequence[Entry], root: Path) -> None:
        """Find the patients of support images together with the tested: an issuer counts only where all name one."""
        tested = (
            self.test_data.samples if hasattr(self, "test_data") else DataFrame(columns=["image_path", "patient_id"])
        )
        known = {
            ImageAddress.parse(path).path: patient.removeprefix(f"{self.target}/")
            for path, patient in zip(tested.image_path, tested.patient_id, strict=True)
        }
        others = [Entry(ImageAddress(path), "test", NORMAL_CLASS) for path in known]
        find_patients([*support, *others], root, self._patient_patterns.get(self.target))
        same = {other.patient: known[other.path.path] for other in others}
        for entry in support:
            entry.patient = same.get(entry.patient, entry.patient)

    def _refuse_tested_support(self) -> None:
        if not hasattr(self, "test_data"):
            return
        tested = {Path(path).resolve() for path in self.test_data.samples.image_path}
        patients = set(self.test_data.samples.patient_id)
        support = self.support_data.samples
        shared = [
            path
            for path, patient in zip(support.image_path, support.patient_id, strict=True)
            if Path(path).resolve() in tested or patient in patients
        ]
        if shared:
            msg = (
                f"{counted(len(shared), 'support image')} of {self.target} {agree(len(shared), 'is', 'are')} in the "
                f"test too, or of a patient of the test, such as {shared[0]}. What is in the support scores as normal "
                "by construction: take it out of one of the two."
            )
            raise ValueError(msg)

    def _create_val_split(self) -> None:
        """Hold out normals of the training tasks; their supports come from what is left."""
        super()._create_val_split()
        for data in (self.train_data, self.val_data):
            if isinstance(data, EpisodeDataset):
                data.pool = self.train_data.samples
        for name, count in self.train_data.samples.task.value_counts().items():
            self._check_count(str(name), int(count), self.shots + 1, "a query and its support, less those held out")

    def choose_support(self, rows: Sequence[int]) -> None:
        """Take other images as the target's support; a folder ``support/`` stays as it is.

        Args:
            rows: Rows of ``support_pool``, the normal images that may be taken, of different patients where possible.
        """
        if len(self.support_pool) > len(self.support_data):
            self.support_data.samples = self.support_pool.iloc[list(rows)].reset_index(drop=True)

    def support_images(self) -> torch.Tensor:
        """Read the target's support.

        Returns:
            (K, 3, H, W) in [0, 1]; images of different sizes are brought to ``image_size``.

        Raises:
            ImageReadError: If a file cannot be read.
        """
        images = [read_image(path, self.window) for path in self.support_data.samples.image_path]
        if len({image.shape for image in images}) > 1:
            size = [self.image_size, self.image_size]
            images = [torch.nn.functional.interpolate(image[None], size, mode="bilinear")[0] for image in images]
        return torch.stack(images)

    def train_dataloader(self) -> DataLoader[Any]:
        """Load episodes, drawn anew in every epoch."""
        return self._episodes(self.train_data, self.train_batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the episodes of held-out normals, the same in every epoch."""
        return self._episodes(self.val_data, self.eval_batch_size, shuffle=False)

    def _episodes(self, data: MedicalDataset, batch_size: int, *, shuffle: bool) -> DataLoader[Any]:
        if not isinstance(data, EpisodeDataset):
            msg = f"Expected episodes, got {type(data).__name__}."
            raise TypeError(msg)
        return DataLoader(
            data,
            batch_size=batch_size,
            sampler=EpisodeSampler(data, self.shots, self._split_seed, shuffle=shuffle),
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or data.collate_fn,
        )

    def _tasks(self) -> dict[str, MedicalDataModule]:
        if self._given_tasks is not None:
            return {composed(task.name): task for task in self._given_tasks}
        root = self.root or Path()
        if not root.is_dir():
            msg = f"There is no folder {root}. {EXPECTED_TREE}"
            raise FileNotFoundError(msg)
        folders = sorted(child for child in root.iterdir() if (child / "train").is_dir() or self._is_new(child))
        self._report_beside(root, folders)
        unknown = set(self._patient_patterns) - {composed(folder.name) for folder in folders}
        if unknown:
            msg = f"patient_patterns names {', '.join(sorted(unknown))}: there is no such task in {root}."
            raise ValueError(msg)
        return {
            composed(folder.name): (_NewTask if self._is_new(folder) else MedicalFolder)(
                folder,
                patient_pattern=self._patient_patterns.get(composed(folder.name)),
                window=None if self.window is None else (self.window.center, self.window.width),
                mask_labels=list(self.mask_rule.labels),
                mask_threshold=self.mask_rule.threshold,
            )
            for folder in folders
        }

    def _report_beside(self, root: Path, folders: Sequence[Path]) -> None:
        """Warn of what belongs to no task: others' images would be missed without a word."""
        listing = list_folder(root, deep=False)
        there = [child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")]
        beside = sorted({*there, *listing.images} - set(folders))
        if beside:
            logger.warning(
                "%s: left out what belongs to no task (%d, such as %s): a task is a folder with train/.",
                root,
                len(beside),
                beside[0],
            )
        self.left_out += take_left_out(with_left_out(DataFrame(), listing, str(root)))

    def _is_new(self, folder: Path) -> bool:
        """Whether this is the target, and nothing but its support is there to learn from."""
        return composed(folder.name) == self.target and not (folder / "train").is_dir() and (folder / SUPPORT).is_dir()

    def _check_names(self, names: list[str]) -> None:
        there = ", ".join(names) or "none"
        if self._given_tasks is not None and len(names) != len(self._given_tasks):
            msg = f"Tasks must have different names, got {', '.join(task.name for task in self._given_tasks)}."
            raise ValueError(msg)
        if self.target not in names:
            msg = f"There is no task {self.target!r} to test on, found: {there}. {EXPECTED_TREE}"
            raise ValueError(msg)
        if len(names) < 2:
            msg = f"Leaving {self.target} out leaves no task to train on: found only {there}. {EXPECTED_TREE}"
            raise ValueError(msg)

    @staticmethod
    def _check_count(task: str, count: int, needed: int, what: str, listing: Listing | None = None) -> None:
        if count < needed:
            msg = f"The task {task} has {counted(count, 'normal image')}, expected at least {needed} for {what}."
            raise ValueError(f"{msg} {listing.left_out() if listing else ''}".strip())


class _NewTask(MedicalFolder):
    """A task of which there are ``support/`` and ``test/`` only."""

    def _setup(self, _stage: str | None = None) -> None:
        support = list_folder(self.root / SUPPORT).images
        tree = list_tree(self.root, needs_normals=False)
        entries = [Entry(ImageAddress(path), "train", NORMAL_CLASS) for path in support] + tree.entries
        find_patients(entries, self.root, self.patient_pattern)
        samples = build_samples(entries, mask_rule=self.mask_rule)
        samples = with_left_out(samples, tree.listing, str(self.root))
        self.left_out = take_left_out(samples)
        data = MedicalDataset(window=self.window, mask_rule=self.mask_rule)
        data.samples = samples
        self.train_data = data.subsample(list(data.samples.index[data.samples.split == "train"]))
        if (data.samples.split == "test").any():
            self.test_data = data.subsample(list(data.samples.index[data.samples.split == "test"]))


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


def _one_a_patient(normals: DataFrame, shots: int, seed: int) -> DataFrame:
    """Keep one image of each patient, or all images where that leaves fewer than a support."""
    patients = normals.patient_id.nunique()
    return normals if patients < shots else draw_support(normals, patients, seed)


def _of_task(samples: DataFrame, name: str) -> DataFrame:
    """Name the task of each row; patients of different tasks are different patients."""
    marked = samples.assign(task=name, patient_id=[f"{name}/{patient}" for patient in samples.patient_id])
    marked.attrs = dict(samples.attrs)
    return marked.reset_index(drop=True)
