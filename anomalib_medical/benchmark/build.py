"""Models and data of a plan: the same size, backbone, weights and threshold for all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Literal

from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.pre_processing import PreProcessor
from jsonargparse import ArgumentParser
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_medical.benchmark.plan import Plan, expand
from anomalib_medical.benchmark.records import PlannedJob
from anomalib_medical.benchmark.trivial import TRIVIAL
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.few_shot.tasks import FewShotTasks
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.module import IMAGENET_MEAN, IMAGENET_STD
from anomalib_medical.models.components.weights import load_backbone, without_download
from anomalib_medical.post_processing import MedicalPostProcessor
from anomalib_medical.registration import find_datamodule, find_model

# Where anomalib's models keep the frozen backbone, below `model.model`.
_TEACHER_MODULES = {
    "Padim": "feature_extractor",
    "Patchcore": "feature_extractor",
    "ReverseDistillation": "encoder",
    "Stfpm": "teacher_model",
}
TeacherSource = Literal["file", "hub", "random", "none"]


def build_datamodule(plan: Plan, dataset: str, train_batch_size: int | None = None) -> MedicalDataModule:
    """Build a dataset's datamodule.

    Raises:
        MedicalError: If its class or an argument is unknown.
    """
    data = plan.datasets[dataset]
    where = f"datasets.{dataset}"
    cls = find_datamodule(data.class_path, f"{where}: class_path")
    if not issubclass(cls, MedicalDataModule):
        msg = (
            f"{where}: {cls.__name__} is anomalib's own, which knows no patients and may validate on the test set. Use "
            "MedicalFolder (it reads the same folders), or another datamodule of anomalib_medical."
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
    # The same for all that take it, but where their own entry says otherwise.
    given: dict[str, Any] = {
        "backbone": plan.backbone,
        "image_size": size,
        "pre_trained": plan.pre_trained,
        # A model that asks for weights of the hub gets them.
        "teacher_weights": None if own.get("pre_trained") else expand(plan.teacher_weights),
        "seed": job.seed,
        **own,
    }
    arguments: dict[str, Any] = {
        "evaluator": False,
        "visualizer": False,
        "post_processor": MedicalPostProcessor(target_specificity=plan.target_specificity),
    }
    if "image_size" not in accepted:
        arguments["pre_processor"] = _pre_processor(size, normalize=settings.normalize)
    arguments |= {name: value for name, value in given.items() if name in accepted}
    with contextlib.nullcontext() if given["pre_trained"] else without_download():
        model = cls(**arguments)
    if "backbone" not in accepted:
        return model, "none"
    weights = given["teacher_weights"]
    if weights is not None and "teacher_weights" not in accepted:
        load_backbone(_teacher(model, job), weights, str(given["backbone"]).partition(".")[0])
    return model, "file" if weights else "hub" if given["pre_trained"] else "random"


def model_class(plan: Plan, job: PlannedJob) -> tuple[type[AnomalibModule], list[str]]:
    """Find a job's model class, and its arguments.

    Raises:
        MedicalError: If there is none, or it has not the plan's arguments.
    """
    where = f"models.{job.model}"
    settings = plan.settings(job.model, job.dataset)
    cls = find_model(settings.class_path, f"{where}: class_path", TRIVIAL)
    return cls, _check_arguments(cls, settings.init_args, where)


def _check_arguments(cls: type, arguments: Iterable[str], where: str) -> list[str]:
    """Refuse arguments that a class does not have; returns those it has, of its bases too if it passes them on."""
    accepted: list[str] = ArgumentParser().add_class_arguments(cls, fail_untyped=False)
    unknown = [name for name in arguments if name not in accepted]
    if unknown:
        msg = f"{where}: {cls.__name__} has no argument {unknown[0]!r}. It has {', '.join(accepted)}."
        raise MedicalError(msg)
    return accepted


def _pre_processor(size: int, *, normalize: bool) -> PreProcessor:
    # Without antialiasing, as our own models: exported graphs cannot antialias.
    resize = Resize((size, size), antialias=False)
    return PreProcessor(Compose([resize, Normalize(IMAGENET_MEAN, IMAGENET_STD)] if normalize else [resize]))


def _teacher(model: AnomalibModule, job: PlannedJob) -> Any:  # noqa: ANN401 - a module
    name = type(model).__name__
    if name not in _TEACHER_MODULES:
        msg = (
            f"models.{job.model}: where {name} keeps its frozen backbone is not known, so that teacher_weights "
            f"cannot be loaded into it, but into {', '.join(_TEACHER_MODULES)} and ours. Leave the model out, or "
            "give it timm's weights: init_args: {pre_trained: true}"
        )
        raise MedicalError(msg)
    extractor = model.model.get_submodule(_TEACHER_MODULES[name])
    return extractor.feature_extractor if isinstance(extractor, TimmFeatureExtractor) else extractor
