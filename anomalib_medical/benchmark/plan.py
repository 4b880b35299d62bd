"""The plan of a benchmark: models x datasets x seeds, and the jobs that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from anomalib_medical.benchmark.trivial import TRIVIAL
from anomalib_medical.errors import MedicalError


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
        gallery: Pictures of the k highest and k lowest scores of a class; 0 for none (pictures show patients).
        keep_weights: Whether the last weights of each training are kept, as a checkpoint that can be bundled.
        weights_folder: Where; None for the job's folder.
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
    keep_weights: bool = True
    weights_folder: str | None = None
    devices: Literal["auto"] | tuple[str, ...] = "auto"
    limits: Limits = field(default_factory=Limits)
    teacher_sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, environment variables unexpanded."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def jobs(self) -> list[JobSpec]:
        """All jobs: seed by seed, so that a run cut short has whole tables; within a dataset the quickest first."""
        found = []
        for seed in self.seeds:
            for dataset, data in self.datasets.items():
                for name in sorted(self.models, key=lambda name: not self.models[name].is_trivial):
                    model = self._model(name, data)
                    if model is None:
                        continue
                    # A trivial score does not change with the seed, but for the random one.
                    varies = not model.is_trivial or TRIVIAL[model.class_path].random
                    if varies or seed == self.seeds[0]:
                        found.append(JobSpec(f"{dataset}__{name}__seed{seed}", dataset, name, seed, model))
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
