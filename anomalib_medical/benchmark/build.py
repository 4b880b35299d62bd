"""Models and data of a plan: the same size, backbone, weights and threshold for all."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, cast

import anomalib.data
import anomalib.models
from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_medical.benchmark.plan import JobSpec, Plan, PlanError
from anomalib_medical.benchmark.plan_file import expand
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.few_shot.tasks import FewShotTasks
from anomalib_medical.models.components.module import IMAGENET_MEAN, IMAGENET_STD
from anomalib_medical.models.components.teacher import load_backbone, without_download
from anomalib_medical.post_processing import MedicalPostProcessor

#: Where anomalib's models keep the frozen backbone, below ``model.model``.
TEACHER_MODULES = {
    "Padim": "feature_extractor",
    "Patchcore": "feature_extractor",
    "ReverseDistillation": "encoder",
    "Stfpm": "teacher_model",
}
TeacherSource = Literal["file", "hub", "random", "none"]


class PlannedTasks(FewShotTasks):
    """`FewShotTasks` over the datasets of a plan, under the plan's names.

    Args:
        datasets: Name -> datamodule.
        **kwargs: Arguments of `FewShotTasks`.
    """

    def __init__(self, datasets: Mapping[str, MedicalDataModule], **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(tasks=list(datasets.values()), **kwargs)
        self._datasets = dict(datasets)

    @property
    def support_patients(self) -> set[str]:
        """Patients of the target's support, as its own datamodule names them."""
        prefix = f"{self.target}/"
        return {str(patient).removeprefix(prefix) for patient in self.support_data.samples.patient_id}

    def _tasks(self) -> dict[str, MedicalDataModule]:
        return self._datasets


def build_datamodule(plan: Plan, dataset: str, train_batch_size: int | None = None) -> MedicalDataModule:
    """Build a dataset's datamodule.

    Raises:
        PlanError: If its class or an argument is unknown.
    """
    data = plan.datasets[dataset]
    where = f"datasets.{dataset}"
    cls = find_class(data.class_path, AnomalibDataModule, anomalib.data, where)
    if not issubclass(cls, MedicalDataModule):
        msg = (
            f"{where}: {cls.__name__} is anomalib's own, which knows no patients and may validate on the test set. Use "
            "MedicalFolder (it reads the same folders), or another datamodule of anomalib_medical."
        )
        raise PlanError(msg)
    shared = {
        "train_batch_size": train_batch_size or plan.train_batch_size,
        "eval_batch_size": plan.eval_batch_size,
        "num_workers": plan.num_workers,
    }
    return cast("MedicalDataModule", _call(cls, {**shared, **expand(data.init_args)}, where))


def build_tasks(plan: Plan, job: JobSpec) -> PlannedTasks:
    """Build the other datasets as tasks to learn on, with the job's dataset as the target."""
    spec = plan.spec(job)
    return PlannedTasks(
        {name: build_datamodule(plan, name) for name in plan.datasets},
        target=job.dataset,
        shots=job.model.few_shot or 1,
        image_size=spec["image_size"],
        train_batch_size=spec["train_batch_size"],
        eval_batch_size=plan.eval_batch_size,
        num_workers=plan.num_workers,
        seed=job.seed,
        support_seed=job.seed,
    )


def build_model(plan: Plan, job: JobSpec) -> tuple[AnomalibModule, TeacherSource]:
    """Build a job's model; seed before.

    Returns:
        The model, with raw scores and a `MedicalPostProcessor`, and where its backbone's weights come from.

    Raises:
        PlanError: If its class or an argument is unknown, or the plan's teacher cannot be loaded into it.
    """
    where = f"models.{job.model_name}"
    cls = model_class(job)
    accepted = inspect.signature(cls).parameters
    size = job.model.image_size or plan.image_size
    weights = expand(plan.teacher_weights)
    given = expand(job.model.init_args)
    shared: dict[str, Any] = {
        "backbone": plan.backbone,
        "image_size": size,
        "pre_trained": plan.pre_trained,
        "teacher_weights": weights,
        "seed": job.seed,
    }
    arguments = {name: value for name, value in shared.items() if name in accepted}
    if "image_size" not in accepted:
        arguments["pre_processor"] = _pre_processor(size, normalize=job.model.normalize)
    arguments |= {"evaluator": False, "visualizer": False}
    arguments["post_processor"] = MedicalPostProcessor(target_specificity=plan.target_specificity)
    with contextlib.nullcontext() if plan.pre_trained else without_download():
        model = cast("AnomalibModule", _call(cls, arguments | given, where))
    if "backbone" not in accepted:
        return model, "none"
    if "teacher_weights" in accepted:
        weights = given.get("teacher_weights", weights)
        return model, "file" if weights else "hub" if given.get("pre_trained", plan.pre_trained) else "random"
    if weights is not None and not given.get("pre_trained"):
        load_backbone(_teacher(model, job), weights, str(given.get("backbone", plan.backbone)).partition(".")[0])
        return model, "file"
    return model, "hub" if given.get("pre_trained", plan.pre_trained) else "random"


def model_class(job: JobSpec) -> type[AnomalibModule]:
    """Find a job's model class.

    Raises:
        PlanError: If there is none, or it has not the plan's arguments.
    """
    where = f"models.{job.model_name}"
    cls = cast("type[AnomalibModule]", find_class(job.model.class_path, AnomalibModule, anomalib.models, where))
    _check_arguments(cls, job.model.init_args, where)
    return cls


def find_class(path: str, base: type, registry: ModuleType, where: str) -> type:
    """Find a class by its class path, or by its name among those that anomalib knows.

    Raises:
        PlanError: If there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module) if module else registry, name, None)
    except ImportError as error:
        msg = f"{where}: class_path is {path!r}, and {module} cannot be imported ({error})."
        raise PlanError(msg) from error
    if isinstance(found, type) and issubclass(found, base):
        return found
    names = [each for each, value in vars(registry).items() if isinstance(value, type) and issubclass(value, base)]
    if base is AnomalibModule:
        from anomalib_medical.benchmark.trivial import TRIVIAL

        names += TRIVIAL
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(sorted(names))}."
    msg = f"{where}: class_path is {path!r}, which is unknown. {hint}"
    raise PlanError(msg)


def _call(cls: type, arguments: dict[str, Any], where: str) -> object:
    _check_arguments(cls, arguments, where)
    return cls(**arguments)


def _check_arguments(cls: type, arguments: Iterable[str], where: str) -> None:
    accepted: dict[str, None] = {}
    # A class that passes arguments on takes those of its base.
    for each in cls.__mro__:
        parameters = inspect.signature(each).parameters if "__init__" in vars(each) else {}
        accepted |= dict.fromkeys(name for name, value in parameters.items() if value.kind != value.VAR_KEYWORD)
        if not any(value.kind == value.VAR_KEYWORD for value in parameters.values()) and parameters:
            break
    unknown = [name for name in arguments if name not in accepted]
    if unknown:
        msg = f"{where}: {cls.__name__} has no argument {unknown[0]!r}. It has {', '.join(accepted)}."
        raise PlanError(msg)


def _pre_processor(size: int, *, normalize: bool) -> PreProcessor:
    # Without antialiasing, as our own models: exported graphs cannot antialias.
    steps: list[nn.Module] = [Resize((size, size), antialias=False)]
    if normalize:
        steps.append(Normalize(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)))
    return PreProcessor(Compose(steps))


def _teacher(model: AnomalibModule, job: JobSpec) -> nn.Module:
    where = job.model.teacher_module or TEACHER_MODULES.get(type(model).__name__)
    if where is None:
        msg = (
            f"models.{job.model_name}: where {type(model).__name__} keeps its frozen backbone is not known, so that "
            "teacher_weights cannot be loaded into it. Name the attribute of its network: teacher_module: encoder"
        )
        raise PlanError(msg)
    try:
        extractor = model.model.get_submodule(where)
    except AttributeError as error:
        msg = f"models.{job.model_name}: teacher_module is {where!r}, and the network has no such attribute."
        raise PlanError(msg) from error
    return extractor.feature_extractor if isinstance(extractor, TimmFeatureExtractor) else extractor
