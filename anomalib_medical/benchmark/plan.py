"""The plan of a benchmark, models x datasets x seeds: a YAML file, checked, compared, and turned into jobs."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from anomalib_medical.benchmark.records import PlannedJob
from anomalib_medical.benchmark.trivial import TRIVIAL
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import sha256

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_T = TypeVar("_T")
# Options of sbatch by which jobs are found again, and told that they are preempted.
_OWN_OPTIONS = frozenset({"array", "job_name", "output", "error", "signal"})


# `dict[str, object]` and not `Any`: of the latter jsonargparse would turn the text "1" into a number.
@dataclass(frozen=True)
class Limits:
    """What a job may use."""

    # Wall clock of a training, the same for all models. One that makes a single pass (PatchCore, PaDiM) ends earlier.
    train_minutes: PositiveFloat = 10.0
    # Wall clock after which a job is killed; None for twice the training and 15 minutes more.
    job_minutes: PositiveFloat | None = None
    memory_gib: PositiveFloat | None = None  # resident memory of a job's processes above which it is killed

    @property
    def job_seconds(self) -> float:
        """Wall clock after which a job is killed."""
        return 60 * float(self.job_minutes or 2 * self.train_minutes + 15)


@dataclass(frozen=True)
class Cluster:
    """What each job asks SLURM for, with ``--executor slurm``."""

    partition: str | None = None  # None for the cluster's default
    gpus: NonNegativeInt = 0  # a job trains on the first of them
    cpus: PositiveInt | None = None  # None for the plan's threads, 4 if it has none, and its loading processes
    memory_gib: PositiveFloat | None = None  # None for 2 more than limits.memory_gib, or the cluster's default
    at_once: PositiveInt | None = None  # jobs that run at the same time; None for as many as find room
    slurm: dict[str, object] = field(default_factory=dict)  # other options of sbatch, such as account, qos, gres


@dataclass(frozen=True)
class ModelPlan:
    """A model."""

    class_path: str  # an anomalib model by its name or class path, or a trivial baseline by its name
    label: str = ""  # its name for readers; the plan's key by default
    init_args: dict[str, object] = field(default_factory=dict)  # of the class, over what the plan gives to all
    trainer: dict[str, object] = field(default_factory=dict)  # of Lightning's Trainer, over the model's own
    image_size: PositiveInt | None = None  # instead of the plan's
    train_batch_size: PositiveInt | None = None  # instead of the plan's
    normalize: bool = True  # with ImageNet statistics; false for models that do it themselves
    few_shot: PositiveInt | None = None  # train on the other datasets, with so many normals of the target as support
    skip: bool = False  # leave it out


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset."""

    class_path: str  # a datamodule by its name or class path
    init_args: dict[str, object] = field(default_factory=dict)
    models: dict[str, dict[str, object]] = field(default_factory=dict)  # model -> what of its plan differs here


@dataclass(frozen=True)
class Plan:
    """Models x datasets x seeds."""

    models: dict[str, ModelPlan]
    datasets: dict[str, DatasetPlan]
    name: str = "benchmark"
    seeds: list[int] = field(default_factory=lambda: [0])  # one job each for every model on every dataset
    # `published` also scores the test set during training, which the report uses to show what choosing a checkpoint on
    # it adds (never to choose one).
    protocol: Literal["clean", "published"] = "clean"
    image_size: PositiveInt = 256  # side of the square that images are resized to
    backbone: str = "resnet18"  # timm name, for all models that take one
    pre_trained: bool = False  # whether backbones start from timm's ImageNet weights, which are downloaded
    teacher_weights: str | None = None  # a local file for all backbones instead; it must be there
    train_batch_size: PositiveInt = 16
    eval_batch_size: PositiveInt = 16
    num_workers: NonNegativeInt = 0  # loading processes of each job
    threads: PositiveInt | None = None  # of each job; None for the cores divided by the devices
    target_specificity: PositiveFloat = 0.95  # share of held-out normals that the threshold leaves below
    latency_repeats: PositiveInt = 50
    gallery: NonNegativeInt = 3  # pictures of the k highest and lowest scores of a class, which show patients; 0: none
    keep_weights: bool = True  # the last weights of each training, as a checkpoint that can be bundled
    weights_folder: str | None = None  # where; None for the job's folder
    devices: str | list[str] = "auto"  # all GPUs, or the CPU without one; or such as ["cuda:0", "cuda:1"], a job each
    limits: Limits = field(default_factory=Limits)
    cluster: Cluster = field(default_factory=Cluster)  # instead of `devices`, with --executor slurm
    teacher_sha256: str = ""  # filled in
    own_teachers: dict[str, str] = field(default_factory=dict)  # file of an entry's init_args -> sha256; filled in

    @cached_property
    def jobs(self) -> dict[str, PlannedJob]:
        """All jobs by name: seed by seed, so that a run cut short has whole tables; within a dataset trivial first."""
        found = {}
        names = sorted(self.models, key=lambda name: self.models[name].class_path not in TRIVIAL)
        for seed, dataset, name in itertools.product(self.seeds, self.datasets, names):
            settings = self.settings(name, dataset)
            kind: Literal["trained", "trivial"] = "trivial" if settings.class_path in TRIVIAL else "trained"
            # A trivial score does not change with the seed, but for the random one.
            varies = kind == "trained" or settings.class_path == "RandomScore"
            if not settings.skip and (varies or seed == self.seeds[0]):
                job = f"{dataset}__{name}__seed{seed}"
                found[job] = PlannedJob(job, dataset, name, settings.label or name, seed, kind)
        return found

    def settings(self, model: str, dataset: str) -> ModelPlan:
        """A model's plan with what differs on a dataset."""
        general = self.models[model]
        changes: dict[str, Any] = dict(self.datasets[dataset].models.get(model, {}))
        for key in ("init_args", "trainer"):
            changes[key] = getattr(general, key) | (changes.get(key) or {})
        return replace(general, **changes)

    def spec(self, job: PlannedJob) -> dict[str, Any]:
        """All that a job's result depends on."""
        shared = ("protocol", "backbone", "pre_trained", "eval_batch_size", "num_workers", "threads")
        data = {name: asdict(data) | {"models": {}} for name, data in self.datasets.items()}
        settings = self.settings(job.model, job.dataset)
        return {
            **asdict(settings),
            "image_size": settings.image_size or self.image_size,
            "train_batch_size": settings.train_batch_size or self.train_batch_size,
            **{key: getattr(self, key) for key in (*shared, "target_specificity", "latency_repeats", "gallery")},
            "train_minutes": self.limits.train_minutes,
            "data": data[job.dataset],
            "other_data": data if settings.few_shot else {},  # what a few-shot model learns from
        }

    def teacher_of(self, job: PlannedJob) -> str | None:
        """The file with the weights of a job's backbone, as the plan names it; its own entry comes first."""
        own = self.settings(job.model, job.dataset).init_args
        if "teacher_weights" in own:
            return None if own["teacher_weights"] is None else str(own["teacher_weights"])
        # A model that asks for weights of the hub gets them.
        return None if own.get("pre_trained") else self.teacher_weights

    def teacher_digest(self, job: PlannedJob) -> str:
        """The sha256 of that file; "" without one."""
        file = self.teacher_of(job)
        return "" if file is None else self.own_teachers.get(file, self.teacher_sha256)

    def with_teacher_digest(self) -> Plan:
        """Fill in the sha256 of the teachers' files.

        Raises:
            MedicalError: If there is no such file.
        """
        files = {self.teacher_weights, *map(self.teacher_of, self.jobs.values())} - {None}
        digests = {str(file): self._digest(str(file)) for file in sorted(map(str, files))}
        own = {file: digest for file, digest in digests.items() if file != self.teacher_weights}
        return replace(self, teacher_sha256=digests.get(str(self.teacher_weights), ""), own_teachers=own)

    def _digest(self, file: str) -> str:
        path = Path(expand(file))
        if not path.is_file():
            msg = (
                f"teacher_weights: there is no file {path}. Give a .safetensors or .pth file of the model's backbone "
                f"(the plan's is {self.backbone}), or leave teacher_weights out for random weights (results are then "
                "floors)."
            )
            raise MedicalError(msg)
        return sha256(path)


# What may change in a run folder without making results incomparable.
_FREE = ("cluster", "devices", "keep_weights", "limits.job_minutes", "limits.memory_gib", "weights_folder")


def load_plan(path: Path, cluster: Mapping[str, object] | None = None) -> Plan:
    """Read and check a plan, with entries of its section ``cluster`` replaced by those given.

    Raises:
        MedicalError: If something in it is unknown, missing or impossible.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"There is no plan {path}. `anomalib-medical configs` lists those that come with the package."
        raise MedicalError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is no YAML file: {' '.join(str(error).split())}"
        raise MedicalError(msg) from error
    if cluster and isinstance(content, Mapping):
        content = {**content, "cluster": {**(content.get("cluster") or {}), **cluster}}
    return make_plan(content, str(path))


def make_plan(content: object, source: str) -> Plan:
    """Check the content of a plan; ``source`` is for errors."""
    if isinstance(content, Mapping) and {"benchmark", "accelerator"} & content.keys():
        msg = f"{source} is a file of anomalib's own benchmark. Run it with: anomalib benchmark --config {source}"
        raise MedicalError(msg)
    try:
        plan: Plan = _read(Plan, content, "")
        wrong = _contradiction(plan)
        for name, data in plan.datasets.items():
            where = f"datasets.{name}.models"
            for changed, changes in _section(data.models, where, plan.models).items():
                _fields(ModelPlan, changes, f"{where}.{changed}.")
    except MedicalError as error:
        wrong = str(error)
    if wrong:
        msg = f"{source}: {wrong}"
        raise MedicalError(msg)
    return plan


def _contradiction(plan: Plan) -> str:
    """What cannot be, though every value can; "" if all is well."""
    if len(set(plan.seeds)) < max(1, len(plan.seeds)):
        return f"seeds is {plan.seeds}, expected each seed once, and at least one."
    if plan.pre_trained and plan.teacher_weights:
        return "it has both pre_trained: true and teacher_weights: give one of them."
    if own := {name.replace("-", "_") for name in plan.cluster.slurm} & _OWN_OPTIONS:
        return f"cluster.slurm has {min(own)!r}, which the benchmark itself sets: leave it out."
    for name, model in plan.models.items():
        if "max_time" in model.trainer:
            return f"models.{name}.trainer has max_time: the cap is limits.train_minutes, the same for all."
        if model.few_shot and len(plan.datasets) < 2:
            return f"models.{name} learns on the other datasets (few_shot), and there is only one dataset."
    return ""


def expand(value: _T) -> _T:
    """Replace ``${NAME}`` in texts by the environment variable.

    Raises:
        MedicalError: If some are not set, naming all of them.
    """
    unset = [name for name in dict.fromkeys(_VARIABLE.findall(repr(value))) if not os.environ.get(name)]
    if unset:
        exports = " ".join(f"{name}=/path/to/it" for name in unset)
        msg = (
            f"The plan uses environment variables that are not set: {', '.join(unset)}. Set them first, such as "
            f"`export {exports}`; what they are, the head of the file says."
        )
        raise MedicalError(msg)
    return _expanded(value)  # type: ignore[no-any-return]


def _expanded(value: Any) -> Any:  # noqa: ANN401 - any YAML
    if isinstance(value, Mapping):
        return {key: _expanded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(entry) for entry in value]
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value) if isinstance(value, str) else value


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


def _read(kind: Any, content: object, path: str) -> Any:  # noqa: ANN401 - a dataclass
    """Make a dataclass of what stands at a path of the plan, which ends in a dot below the top."""
    values = _fields(kind, content, path)
    for each in fields(kind):
        if each.default is MISSING and each.default_factory is MISSING and not values.get(each.name):
            msg = f"{path}{each.name} is missing."
            raise MedicalError(msg)
    return kind(**values)


def _fields(kind: type, content: object, path: str) -> dict[str, Any]:
    """Bring what is given of a dataclass's fields to their types."""
    hints = get_type_hints(kind)
    wanted = {each.name: str(each.type) for each in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in _section(content, path.removesuffix(".") or "it", wanted).items():
        hint, where = hints[key], f"{path}{key}"
        of_entries: Any = get_args(hint)[1] if get_origin(hint) is dict else None
        if is_dataclass(hint):
            values[key] = _read(hint, value, f"{where}.")
        elif is_dataclass(of_entries):
            entries = _section(value, where).items()
            values[key] = {name: _read(of_entries, entry, f"{where}.{name}.") for name, entry in entries}
        elif value is not None or type(None) in get_args(hint):  # a key without a value is none
            values[key] = _typed(hint, value, f"{where} is {_short(value)}, expected {wanted[key]}.")
    return values


def _typed(hint: object, value: object, message: str) -> object:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        found = parser.parse_object({"value": value}).value
    except ArgumentError as error:
        raise MedicalError(message) from error
    if isinstance(found, bool) or not isinstance(found, int | float):
        return found
    return float(found) if isinstance(found, float) else int(found)  # YAML cannot write a PositiveFloat


def _section(content: object, where: str, known: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Refuse what is no mapping and keys that are not known, or without known ones cannot name a folder."""
    if not isinstance(content, Mapping):
        msg = f"{where} is {_short(content)}, expected names with values below them."
        raise MedicalError(msg)
    for key in map(str, content):
        if known is not None and key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}."
            msg = f"{where} has {key!r}, which is unknown: {hint}"
            raise MedicalError(msg)
        if known is None and not _NAME.fullmatch(key):
            msg = f"{where} has the name {key!r}, expected letters, digits, '_', '-' and '.': folders are named so."
            raise MedicalError(msg)
    return {str(key): value for key, value in content.items()}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
