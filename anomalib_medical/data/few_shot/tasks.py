"""Several tasks (organs, scanners): learn on all but one, see K normal images of that one, test on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import torch
from pandas import DataFrame
from torch.utils.data import DataLoader

from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.few_shot.episodes import EpisodeDataset, EpisodeSampler
from anomalib_medical.data.few_shot.support import (
    SUPPORT,
    SupportedFolder,
    draw_support,
    one_a_patient,
    require_normals,
)
from anomalib_medical.data.folder.datamodule import MedicalFolder
from anomalib_medical.data.images import SCORES_AS_NORMAL, Pictures, read_image, read_pictures
from anomalib_medical.data.samples import take_left_out, with_left_out
from anomalib_medical.io import ImageAddress, Listing, MaskRule, agree, composed, counted, list_folder

logger = logging.getLogger(__name__)

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
        tasks: Datamodules, one a task, instead of ``root``: a list, in which tasks have their names, or by name.
        shots: Normal images in each training episode's support.
        target_shots: Normal images in the target's support. Defaults to ``shots``.
        support_seed: Decides which images are the target's support.
        protocol: Only ``"clean"``: the split and the support sets of the few-shot paper are unreleased.
        image_size: Height and width of episodes where the model's pre-processor does not resize.
        patient_patterns: For each task of ``root``, the regular expression that finds the patient in a file's name.
        mask_labels: Values of masks that are abnormal, of all tasks of ``root``; None for all that are not 0.
        mask_threshold: Values of masks above it are abnormal, instead.
        kwargs: As `MedicalDataModule` has them. ``val_split_ratio`` is the share of the training tasks' images to hold
            out for validation, ``seed`` decides the episodes too.
    """

    def __init__(
        self,
        target: str,
        root: str | Path | None = None,
        tasks: list[MedicalDataModule] | dict[str, MedicalDataModule] | None = None,
        shots: int = 4,
        target_shots: int | None = None,
        support_seed: int = 0,
        protocol: Literal["clean", "published"] = "clean",
        image_size: int = 128,
        patient_patterns: dict[str, str] | None = None,
        mask_labels: list[int] | None = None,
        mask_threshold: float | None = None,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(val_split_mode="from_train", **kwargs)
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
            msg = "mask_labels and mask_threshold are of the tasks in root: give them to each of the given tasks."
            raise ValueError(msg)
        self.shots = shots
        self.target_shots = shots if target_shots is None else target_shots
        for name, value in (("shots", self.shots), ("target_shots", self.target_shots)):
            if value < 1:
                msg = f"{name} is {value}, expected at least 1 normal image."
                raise ValueError(msg)
        self.root = None if root is None else Path(root)
        self.target = composed(target)
        self.support_seed = support_seed
        self.image_size = image_size
        self.mask_rule = MaskRule.of(mask_labels, mask_threshold)
        named = tasks.items() if isinstance(tasks, dict) else [(task.name, task) for task in tasks or ()]
        self._given_tasks = [(composed(name), task) for name, task in named]
        self._patient_patterns = {composed(task): pattern for task, pattern in (patient_patterns or {}).items()}
        self.support_data: MedicalDataset
        self._pool: DataFrame

    @property
    def name(self) -> str:  # type: ignore[override] # Lightning declares an attribute, anomalib makes it a property
        """Name of the target, after which results are filed."""
        return f"{type(self).__name__}_{self.target}"

    def prepare_data(self) -> None:
        """Get the data of the given tasks."""
        for _, task in self._given_tasks:
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
            require_normals(samples.task.iloc[0], len(samples), self.shots + 1, "a query and its support")
        self.train_data = EpisodeDataset(
            pd.concat(known, ignore_index=True).assign(mask_path=""), (self.image_size, self.image_size), self.window
        )
        self.train_data.samples.attrs["task"] = "classification"
        self._setup_target(tasks[self.target])

    def _setup_target(self, target: MedicalDataModule) -> None:
        """Keep the test set, and choose the support: the target's own, or one that is drawn from its normals."""
        support = self._pool = _of_task(target.train_data.samples, self.target)
        tested = support[:0]
        if hasattr(target, "test_data"):
            self.test_data = target.test_data
            tested = self.test_data.samples = _of_task(target.test_data.samples, self.target)
        if not isinstance(target, SupportedFolder):
            # A support image of a tested patient would make that patient's images too easy.
            normals = support[~support.patient_id.isin(tested.patient_id)]
            require_normals(self.target, len(normals), self.target_shots, "its support")
            support = draw_support(normals, self.target_shots, self.support_seed)
            self._pool = one_a_patient(normals, self.target_shots, self.support_seed)
        self.support_data = target.train_data.subsample([0])
        self.support_data.samples = support
        is_tested = support.patient_id.isin(tested.patient_id) | support.image_path.map(os.path.realpath).isin(
            tested.image_path.map(os.path.realpath)
        )
        if shared := list(support.image_path[is_tested]):
            msg = (
                f"{counted(len(shared), 'support image')} of {self.target} {agree(len(shared), 'is', 'are')} in the "
                f"test too, or of a patient of the test, such as {shared[0]}. {SCORES_AS_NORMAL}"
            )
            raise ValueError(msg)

    def _create_val_split(self) -> None:
        """Hold out normals of the training tasks; their supports come from what is left."""
        super()._create_val_split()
        for data in (self.train_data, self.val_data):
            cast("EpisodeDataset", data).pool = self.train_data.samples
        for name, count in self.train_data.samples.task.value_counts().items():
            require_normals(str(name), int(count), self.shots + 1, "a query and its support, less those held out")

    def target_support(self, choose: Callable[[Iterable[torch.Tensor], int], list[int]] | None = None) -> Pictures:
        """Read the target's support; `D24fad` does so.

        Args:
            choose: Takes other images than those that were drawn, from the target's normal images (of different
                patients where possible) and a number; it returns the places of those to take. A folder ``support/``
                stays as it is.

        Raises:
            ImageReadError: If a file cannot be read.
        """
        shots = len(self.support_data)
        if choose is not None and len(self._pool) > shots:
            logger.info("Choosing %d support images of %d.", shots, len(self._pool))
            rows = choose((read_image(path, self.window) for path in self._pool.image_path), shots)
            self.support_data.samples = self._pool.iloc[rows]
        addresses = [ImageAddress.parse(path) for path in self.support_data.samples.image_path]
        return read_pictures(addresses, self.window, self.trainer.default_root_dir if self.trainer else None)

    @property
    def support_patients(self) -> set[str]:
        """Patients of the target's support, as its own datamodule names them."""
        return {patient.removeprefix(f"{self.target}/") for patient in self.support_data.samples.patient_id}

    def train_dataloader(self) -> DataLoader[Any]:
        """Load episodes, drawn anew in every epoch."""
        return self._episodes(self.train_data, self.train_batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the episodes of held-out normals, the same in every epoch."""
        return self._episodes(self.val_data, self.eval_batch_size, shuffle=False)

    def _episodes(self, data: MedicalDataset, batch_size: int, *, shuffle: bool) -> DataLoader[Any]:
        return DataLoader(
            data,
            batch_size=batch_size,
            sampler=EpisodeSampler(cast("EpisodeDataset", data), self.shots, self._split_seed, shuffle=shuffle),
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or data.collate_fn,
        )

    def _tasks(self) -> dict[str, MedicalDataModule]:
        root = self.root
        if root is None:
            return dict(self._given_tasks)
        if not root.is_dir():
            msg = f"There is no folder {root}. {EXPECTED_TREE}"
            raise FileNotFoundError(msg)
        children = {composed(child.name): child for child in sorted(root.iterdir())}
        supported = {name for name, child in children.items() if name == self.target and (child / SUPPORT).is_dir()}
        folders = {name: child for name, child in children.items() if name in supported or (child / "train").is_dir()}
        self._report_beside(root, folders.values())
        if unknown := set(self._patient_patterns) - folders.keys():
            msg = f"patient_patterns names {', '.join(sorted(unknown))}: there is no such task in {root}."
            raise ValueError(msg)
        return {
            name: (SupportedFolder if name in supported else MedicalFolder)(
                folder,
                patient_pattern=self._patient_patterns.get(name),
                window=None if self.window is None else (self.window.center, self.window.width),
                mask_labels=list(self.mask_rule.labels),
                mask_threshold=self.mask_rule.threshold,
            )
            for name, folder in folders.items()
        }

    def _report_beside(self, root: Path, folders: Iterable[Path]) -> None:
        """Warn of what belongs to no task: others' images would be missed without a word."""
        listing = list_folder(root, deep=False)
        there = [child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")]
        if beside := sorted({*there, *listing.images} - set(folders)):
            logger.warning(
                "%s: left out what belongs to no task (%d, such as %s): a task is a folder with train/.",
                root,
                len(beside),
                beside[0],
            )
        self.left_out += take_left_out(with_left_out(DataFrame(), listing, str(root)))

    def _check_names(self, names: list[str]) -> None:
        there = ", ".join(names) or "none"
        if len(names) < len(self._given_tasks):
            msg = f"Tasks must have different names, got {', '.join(name for name, _ in self._given_tasks)}."
            raise ValueError(msg)
        if self.target not in names:
            msg = f"There is no task {self.target!r} to test on, found: {there}. {EXPECTED_TREE}"
            raise ValueError(msg)
        if len(names) < 2:
            msg = f"Leaving {self.target} out leaves no task to train on: found only {there}. {EXPECTED_TREE}"
            raise ValueError(msg)


def _of_task(samples: DataFrame, name: str) -> DataFrame:
    """Name the task of each row; patients of different tasks are different patients."""
    marked = samples.assign(task=name, patient_id=[f"{name}/{patient}" for patient in samples.patient_id])
    marked.attrs = dict(samples.attrs)
    return marked.reset_index(drop=True)
