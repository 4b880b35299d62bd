"""The plan of a benchmark: a YAML file, checked before anything runs."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from anomalib_medical.benchmark.trivial import TRIVIAL
from anomalib_medical.errors import MedicalError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# What may change in a run folder without making results incomparable.
_FREE = ("devices", "limits.job_minutes", "limits.memory_gib")

_T = TypeVar("_T")


class PlanError(MedicalError):
    """A plan cannot be run as it is."""


@dataclass(frozen=True)
class Limits:
    """What a job may use.

    Attributes:
        train_minutes: Wall clock of a training, the same for all models. One that makes a single pass (PatchCore,
            PaDiM) ends earlier.
        job_minutes: Wall clock after which a job is killed; None for twice the training and 15 minutes more.
        memory_gib: Resident memory of a job's processes above which it is killed; None for no limit.
    """

    train_minutes: float = 10.0
    job_minutes: float | None = None
    memory_gib: float | None = None

    @property
    def job_seconds(self) -> float:
        """Wall clock after which a job is killed."""
        minutes = 2 * self.train_minutes + 15 if self.job_minutes is None else self.job_minutes
        return 60 * minutes


@dataclass(frozen=True)
class ModelPlan:
    """A model.

    Attributes:
        class_path: An anomalib model by its name or class path, or a trivial baseline by its name.
        label: Its name for readers; the plan's key by default.
        init_args: Arguments of the class, over what the plan gives to all.
        trainer: Arguments of Lightning's Trainer, over the model's own.
        image_size: Instead of the plan's.
        train_batch_size: Instead of the plan's.
        normalize: Whether images are normalised with ImageNet statistics; for models that do not do it themselves.
        teacher_module: Attribute of the network that holds the frozen backbone, for a model that we do not know.
        few_shot: Train on the plan's other datasets and take this many normal images of the target as support.
    """

    class_path: str
    label: str = ""
    init_args: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    train_batch_size: int | None = None
    normalize: bool = True
    teacher_module: str | None = None
    few_shot: int | None = None

    @property
    def is_trivial(self) -> bool:
        """Whether it is a score without a model."""
        return self.class_path in TRIVIAL


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset.

    Attributes:
        class_path: A datamodule by its name or class path.
        init_args: Arguments of the class.
        models: Model -> what of its plan is different on this dataset; ``skip: true`` leaves it out.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Models x datasets x seeds.

    Attributes:
        models: Name -> model.
        datasets: Name -> dataset.
        name: The benchmark's name.
        seeds: One job each for every model on every dataset.
        protocol: ``clean``; ``published`` also scores the test set during training, which the report uses to show
            what choosing a checkpoint on it adds (never to choose one).
        image_size: Side of the square that images are resized to.
        backbone: timm name for all models that take one.
        pre_trained: Whether backbones start from timm's ImageNet weights, which are downloaded.
        teacher_weights: A local file for all backbones instead; it must be there.
        train_batch_size: Images a training batch.
        eval_batch_size: Images a batch in scoring.
        num_workers: Loading processes of each job.
        threads: Threads of each job; None for the cores divided by the devices.
        target_specificity: Share of held-out normals that the threshold leaves below.
        latency_repeats: Timed repeats.
        gallery: Pictures of the k best and k worst cases of a class; 0 for none (pictures show patients).
        devices: ``auto`` for all GPUs, or the CPU without one; or a list such as ["cuda:0", "cuda:1"], a job each.
        limits: What a job may use.
        teacher_sha256: Filled in.
    """

    models: dict[str, ModelPlan]
    datasets: dict[str, DatasetPlan]
    name: str = "benchmark"
    seeds: tuple[int, ...] = (0,)
    protocol: Literal["clean", "published"] = "clean"
    image_size: int = 256
    backbone: str = "resnet18"
    pre_trained: bool = False
    teacher_weights: str | None = None
    train_batch_size: int = 16
    eval_batch_size: int = 16
    num_workers: int = 0
    threads: int | None = None
    target_specificity: float = 0.95
    latency_repeats: int = 50
    gallery: int = 3
    devices: Literal["auto"] | tuple[str, ...] = "auto"
    limits: Limits = field(default_factory=Limits)
    teacher_sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, environment variables unexpanded."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def jobs(self) -> list[JobSpec]:
        """All jobs, dataset by dataset, the quickest first."""
        found = []
        for dataset, data in self.datasets.items():
            for name in sorted(self.models, key=lambda name: not self.models[name].is_trivial):
                model = self._model(name, data)
                if model is None:
                    continue
                # A trivial score does not change with the seed, but for the random one.
                varies = not model.is_trivial or TRIVIAL[model.class_path].random
                found += [
                    JobSpec(f"{dataset}__{name}__seed{seed}", dataset, name, seed, model)
                    for seed in (self.seeds if varies else self.seeds[:1])
                ]
        return found

    def job(self, name: str) -> JobSpec:
        """The job of a name that `jobs` gave."""
        return next(job for job in self.jobs() if job.name == name)

    def _model(self, name: str, data: DatasetPlan) -> ModelPlan | None:
        changes = dict(data.models.get(name, {}))
        if changes.pop("skip", False):
            return None
        merged = asdict(self.models[name])
        for key, value in changes.items():
            merged[key] = {**merged[key], **value} if isinstance(value, Mapping) else value
        return ModelPlan(**merged)

    def spec(self, job: JobSpec) -> dict[str, Any]:
        """All that a job's result depends on."""
        model = asdict(job.model)
        shared = ("protocol", "backbone", "pre_trained", "eval_batch_size", "num_workers", "threads")
        return {
            **model,
            "image_size": job.model.image_size or self.image_size,
            "train_batch_size": job.model.train_batch_size or self.train_batch_size,
            **{key: getattr(self, key) for key in (*shared, "target_specificity", "latency_repeats", "gallery")},
            "train_minutes": self.limits.train_minutes,
            "data": asdict(self.datasets[job.dataset]) | {"models": {}},
            # What a few-shot model learns from.
            "other_data": {name: asdict(data) | {"models": {}} for name, data in self.datasets.items()}
            if job.model.few_shot
            else {},
        }


@dataclass(frozen=True)
class JobSpec:
    """One model on one dataset with one seed.

    Attributes:
        name: Of the job's folder.
        dataset: The dataset's name.
        model_name: The model's name.
        seed: The seed.
        model: The model with the dataset's changes.
    """

    name: str
    dataset: str
    model_name: str
    seed: int
    model: ModelPlan


def load_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        PlanError: If something in it is unknown, missing or impossible.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"There is no plan {path}. `anomalib-medical configs` lists those that come with the package."
        raise PlanError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is no YAML file: {' '.join(str(error).split())}"
        raise PlanError(msg) from error
    return make_plan(content, str(path))


def load_run_plan(run: Path) -> Plan:
    """Read the plan of a run folder."""
    content = yaml.safe_load((run / "plan.yaml").read_text(encoding="utf-8"))
    digest = content.pop("teacher_sha256", "")
    return replace(make_plan(content, str(run / "plan.yaml")), teacher_sha256=digest)


def make_plan(content: object, source: str) -> Plan:
    """Check the content of a plan; ``source`` is for errors."""
    known = {each.name for each in fields(Plan)} - {"teacher_sha256"}
    values = _section(content, known, source)
    for required in ("models", "datasets"):
        if not values.get(required):
            msg = f"{source} names no {required}, expected at least one under `{required}:`."
            raise PlanError(msg)
        _section(values[required], None, f"{source}: {required}")
    values["models"] = {
        name: _build(ModelPlan, entry, f"{source}: models.{name}") for name, entry in values["models"].items()
    }
    values["datasets"] = {
        name: _build(DatasetPlan, entry, f"{source}: datasets.{name}") for name, entry in values["datasets"].items()
    }
    values["limits"] = _build(Limits, values.get("limits") or {}, f"{source}: limits")
    for key in ("seeds", "devices"):
        if isinstance(values.get(key), Sequence) and not isinstance(values[key], str):
            values[key] = tuple(values[key])
    plan = Plan(**values)
    _check(plan, source)
    return plan


def expand(value: Any) -> Any:  # noqa: ANN401 - any YAML
    """Replace ``${NAME}`` in texts by the environment variable.

    Raises:
        PlanError: If it is not set.
    """
    if isinstance(value, Mapping):
        return {key: expand(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [expand(entry) for entry in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def teacher_digest(plan: Plan) -> str:
    """sha256 of the plan's teacher file, "" without one.

    Raises:
        PlanError: If it is not there.
    """
    if plan.teacher_weights is None:
        return ""
    path = Path(expand(plan.teacher_weights))
    if not path.is_file():
        msg = (
            f"teacher_weights: there is no file {path}. Give a .safetensors or .pth file of {plan.backbone}, or leave "
            "teacher_weights out for random weights (results are then floors)."
        )
        raise PlanError(msg)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two plans, as ``key: old -> new``, less what makes no difference to results."""
    found = []
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in _FREE or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{path}.")
        else:
            found.append(f"{path}: {_short(before)} -> {_short(after)}")
    return found


def _variable(match: re.Match[str]) -> str:
    name = match[1]
    value = os.environ.get(name)
    if not value:
        msg = f"The plan uses ${{{name}}}, and this environment variable is not set. Set it: export {name}=/path/to/it"
        raise PlanError(msg)
    return value


def _section(content: object, known: set[str] | None, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        msg = f"{where} is {_short(content)}, expected names with values below them."
        raise PlanError(msg)
    for key in content:
        if known is not None and key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}."
            msg = f"{where} has {key!r}, which is unknown: {hint}"
            raise PlanError(msg)
        if known is None and not _NAME.fullmatch(str(key)):
            msg = f"{where} has the name {key!r}, expected letters, digits, '_', '-' and '.': folders are named so."
            raise PlanError(msg)
    return {str(key): value for key, value in content.items()}


def _build(kind: type[_T], content: object, where: str) -> _T:
    values = _section(content, {each.name for each in fields(kind)}, where)  # type: ignore[arg-type]  # a dataclass
    try:
        return kind(**values)
    except TypeError as error:
        msg = f"{where}: class_path is missing."
        raise PlanError(msg) from error


def _check(plan: Plan, source: str) -> None:
    numbers = {
        "limits.train_minutes": plan.limits.train_minutes,
        "limits.job_minutes": plan.limits.job_minutes,
        "limits.memory_gib": plan.limits.memory_gib,
        "image_size": plan.image_size,
        "train_batch_size": plan.train_batch_size,
        "eval_batch_size": plan.eval_batch_size,
        "latency_repeats": plan.latency_repeats,
        "threads": plan.threads,
    }
    for key, value in numbers.items():
        if value is not None and (isinstance(value, bool | str) or not value > 0):
            msg = f"{source}: {key} is {_short(value)}, expected a number above 0."
            raise PlanError(msg)
    if plan.protocol not in {"clean", "published"}:
        msg = f"{source}: protocol is {plan.protocol!r}, expected 'clean' or 'published'."
        raise PlanError(msg)
    if not plan.seeds or isinstance(plan.seeds, int) or not all(isinstance(seed, int) for seed in plan.seeds):
        msg = f"{source}: seeds is {_short(plan.seeds)}, expected a list of whole numbers such as [0, 1]."
        raise PlanError(msg)
    if len(set(plan.seeds)) < len(plan.seeds):
        msg = f"{source}: seeds is {_short(list(plan.seeds))}, expected each seed once."
        raise PlanError(msg)
    if plan.pre_trained and plan.teacher_weights:
        msg = f"{source} has both pre_trained: true and teacher_weights: give one of them."
        raise PlanError(msg)
    model_keys = {each.name for each in fields(ModelPlan)} | {"skip"}
    for name, data in plan.datasets.items():
        for changed, changes in _section(data.models, None, f"{source}: datasets.{name}.models").items():
            if changed not in plan.models:
                msg = (
                    f"{source}: datasets.{name}.models changes {changed!r}, which is not in models: "
                    f"{', '.join(plan.models)}."
                )
                raise PlanError(msg)
            _section(changes, model_keys, f"{source}: datasets.{name}.models.{changed}")
    for name, model in plan.models.items():
        if "max_time" in model.trainer:
            msg = f"{source}: models.{name}.trainer has max_time: the cap is limits.train_minutes, the same for all."
            raise PlanError(msg)
        if model.few_shot and len(plan.datasets) < 2:
            msg = f"{source}: models.{name} learns on the other datasets (few_shot), and there is only one dataset."
            raise PlanError(msg)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
