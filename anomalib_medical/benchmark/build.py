"""Models and data of a plan: the same size, backbone, weights and threshold for all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Literal

import timm
from anomalib.data import BMAD
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from jsonargparse import ArgumentParser
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_medical.benchmark.plan import Plan, expand
from anomalib_medical.benchmark.records import PlannedJob
from anomalib_medical.benchmark.trivial import TRIVIAL
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.few_shot.tasks import FewShotTasks
from anomalib_medical.data.published.bmad import MedicalBMAD
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.backbones import normalization
from anomalib_medical.models.components.module import IMAGENET_MEAN, IMAGENET_STD
from anomalib_medical.models.components.weights import (
    find_package,
    load_into_backbone,
    torchvision_backbones,
    without_download,
)
from anomalib_medical.post_processing import MedicalPostProcessor
from anomalib_medical.registration import find_datamodule, find_model

# How models name the argument that chooses a pretrained backbone.
_BACKBONES = frozenset({"backbone", "encoder_name", "rgb_backbone", "teacher_backbone"})
TeacherSource = Literal["file", "hub", "package", "random", "none"]


def build_datamodule(plan: Plan, dataset: str, train_batch_size: int | None = None) -> MedicalDataModule:
    """Build a dataset's datamodule.

    Raises:
        MedicalError: If its class or an argument is unknown.
    """
    data = plan.datasets[dataset]
    where = f"datasets.{dataset}"
    cls = find_datamodule(data.class_path, f"{where}: class_path")
    if cls is BMAD:
        cls = MedicalBMAD
    if not issubclass(cls, MedicalDataModule):
        msg = (
            f"{where}: {cls.__name__} is anomalib's own, which knows no patients and may validate on the test set. Use "
            "MedicalFolder (it reads the same folders), or another datamodule of anomalib_medical; of anomalib's own "
            "BMAD alone is taken, and read by patients."
        )
        raise MedicalError(msg)
    shared = {
        "train_batch_size": train_batch_size or plan.train_batch_size,
        "eval_batch_size": plan.eval_batch_size,
        "num_workers": plan.num_workers,
    }
    arguments = shared | expand(data.init_args)
    _check_arguments(cls, arguments, where)
    return cls(**arguments)


def ready_datamodule(plan: Plan, dataset: str, train_batch_size: int | None = None) -> MedicalDataModule:
    """Build a dataset's datamodule, get its data and set it up."""
    data = build_datamodule(plan, dataset, train_batch_size)
    data.prepare_data()
    data.setup()
    return data


def build_tasks(plan: Plan, job: PlannedJob) -> FewShotTasks:
    """Build the other datasets as tasks to learn on, with the job's dataset as the target."""
    spec = plan.spec(job)
    return FewShotTasks(
        tasks={name: build_datamodule(plan, name) for name in plan.datasets},
        target=job.dataset,
        shots=spec["few_shot"],
        image_size=spec["image_size"],
        train_batch_size=spec["train_batch_size"],
        eval_batch_size=plan.eval_batch_size,
        num_workers=plan.num_workers,
        seed=job.seed,
        support_seed=job.seed,
    )


def build_model(plan: Plan, job: PlannedJob) -> tuple[AnomalibModule, TeacherSource]:
    """Build a job's model; seed before.

    Returns:
        The model, with raw scores and a `MedicalPostProcessor`, and where its backbone's weights come from.

    Raises:
        MedicalError: If its class or an argument is unknown, or the plan's teacher cannot be loaded into it.
    """
    cls, accepted = model_class(plan, job)
    settings = plan.settings(job.model, job.dataset)
    size = settings.image_size or plan.image_size
    own = expand(settings.init_args)
    backbone = str(own.get("backbone", plan.backbone))
    # The same for all that take it, but where their own entry says otherwise.
    given: dict[str, Any] = {
        "backbone": backbone,
        "image_size": size,
        "pre_trained": plan.pre_trained,
        "teacher_weights": expand(plan.teacher_of(job)),
        "seed": job.seed,
        **own,
    }
    weights = given["teacher_weights"]
    package = find_package(backbone) if given["pre_trained"] and not weights else None
    file = weights or (package and package[-1])
    # Others than ours are told to ask for the hub's weights, which shows where a file belongs.
    foreign = "teacher_weights" not in accepted and bool(file)
    given["pre_trained"] |= foreign
    arguments: dict[str, Any] = {
        "evaluator": False,
        "visualizer": False,
        "post_processor": MedicalPostProcessor(target_specificity=plan.target_specificity),
    }
    if "image_size" not in accepted:
        of_backbone = backbone if "backbone" in accepted else ""
        arguments["pre_processor"] = _pre_processor(size, of_backbone, normalize=settings.normalize)
    arguments = {name: value for name, value in (arguments | given).items() if name in accepted}
    offline = foreign or not given["pre_trained"]
    asked: list[nn.Module] = []
    with contextlib.ExitStack() as stack:
        if offline:
            asked = stack.enter_context(without_download())
        model = cls(**arguments)
    has_one = asked or _BACKBONES.intersection(accepted) or torchvision_backbones(model.model)
    if not (has_one or own.get("teacher_weights")):
        return model, "none"
    if foreign and file:
        load_into_backbone(model.model, asked, file)
    if weights:
        return model, "file"
    return model, "random" if not given["pre_trained"] else "package" if package else "hub"


def model_class(plan: Plan, job: PlannedJob) -> tuple[type[AnomalibModule], list[str]]:
    """Find a job's model class, and its arguments.

    Raises:
        MedicalError: If there is none, or it has not the plan's arguments.
    """
    where = f"models.{job.model}"
    settings = plan.settings(job.model, job.dataset)
    cls = find_model(settings.class_path, f"{where}: class_path", TRIVIAL)
    # A file of weights may be given to all that have a backbone.
    return cls, _check_arguments(cls, [name for name in settings.init_args if name != "teacher_weights"], where)


def _check_arguments(cls: type, arguments: Iterable[str], where: str) -> list[str]:
    """Refuse arguments that a class does not have; returns those it has, of its bases too if it passes them on."""
    accepted: list[str] = ArgumentParser().add_class_arguments(cls, fail_untyped=False)
    unknown = [name for name in arguments if name not in accepted]
    if unknown:
        msg = f"{where}: {cls.__name__} has no argument {unknown[0]!r}. It has {', '.join(accepted)}."
        raise MedicalError(msg)
    return accepted


def _pre_processor(size: int, backbone: str, *, normalize: bool) -> PreProcessor:
    # Without antialiasing, as our own models: exported graphs cannot antialias.
    steps: list[Any] = [Resize((size, size), antialias=False)]
    if normalize:
        known = timm.is_model(backbone.partition(".")[0])
        steps.append(Normalize(*normalization(backbone) if known else (IMAGENET_MEAN, IMAGENET_STD)))
    return PreProcessor(Compose(steps))
