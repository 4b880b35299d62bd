"""Lightning module of D2-4FAD: dual distillation for few-shot anomaly detection."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.data.images import Pictures, pictures_in_memory, record_of
from anomalib_medical.io import Window, counted
from anomalib_medical.models.components import (
    FEWEST_NORMALS,
    TOP_SHARE,
    DistillationMixin,
    MapScore,
    check_choice,
    check_score,
    check_seed,
    feature_distances,
    seeded,
)
from anomalib_medical.models.components.backbones import check_pyramid
from anomalib_medical.post_processing import MedicalPostProcessor

from .loss import D24fadLoss
from .pairs import Pairs
from .support import WantedSupport, embed, read_explicit, score_each, takes_normals, warn_of_outliers
from .torch_model import SCALES, D24fadModel, EpisodeFeatures, Features, Matching

logger = logging.getLogger(__name__)

# What older checkpoints did without saying so.
_COMPARING = {"matching": "aligned", "window": 1.0, "features": "student"}


class D24fad(DistillationMixin, AnomalibModule):
    """Dual distillation for few-shot anomaly detection (D2-4FAD, ICLR 2026).

    Learns on several normal-only tasks (organs, scanners) how to compare an image with a few normal images of its own
    task, the support. A new task then needs no training: its support is encoded once and is part of the model, of
    checkpoints and of exported graphs. Train it on `FewShotTasks`; on data of one task it learns that one, from images
    of different patients in a batch, and takes four of the training's as support.

    Args:
        backbone: timm name of the teacher: ``wide_resnet50_2`` (the paper's), ``tf_efficientnet_lite0`` (small, with
            weights from a package) or any other with a pyramid of features; a tag such as ``.tv_in1k`` may follow.
        image_size: Side of the square that images are resized to, or height and width; multiples of the deepest
            stage's stride (32), at least twice that.
        pre_trained: Take the teacher's ImageNet weights from timm's hub when training starts.
        teacher_weights: Local ``.safetensors`` or ``.pth`` file with the teacher's weights, instead of the hub.
        layers: Four of the backbone's feature stages, as timm counts them: three that are compared, and what the
            student sees; None for those of strides 4, 8, 16 and 32.
        normalize: Normalise images as the teacher's weights were made for; false leaves them in [0, 1], as the released
            code does.
        weighting: ``learned`` weighs the support images for each query by the student's features (learn-to-weight),
            ``none`` takes their mean or, with ``nearest``, the nearest of them. The teacher's are not weighed.
        matching: ``aligned`` compares a position with the same position of the support (the paper's), ``nearest`` with
            the most similar one near it: for anatomy that is not aligned.
        window: How far away, up, down, left and right, ``nearest`` looks, as a share of the map's height and width.
        features: Whose features are compared: the ``student``'s (the paper's), the ``teacher``'s (there is nothing to
            train then, and no student), or ``both``.
        ssd_weight: Weight of the student self-distillation (query against support) in the loss.
        tsd_weight: Weight of the teacher-student distillation in the loss.
        stop_gradient: Keep gradients of the self-distillation away from the support's features.
        score_reduction: Image score as ``max`` (the paper's) or ``mean`` of the anomaly map, or as mean of its highest
            pixels (``top_k``), or as ``auto`` finds best on synthetic anomalies of held-out normal images.
        map_normalization: ``pixel`` divides what each pixel of the map exceeds normal images' mean by their standard
            deviation, once :meth:`recalibrate` is given normal images; ``none`` leaves the map as it is.
        top_share: Share of the map's pixels that ``top_k`` takes.
        learning_rate: Adam's learning rate.
        support_dir: Folder of a few normal images of the task to score, instead of the checkpoint's or the data's.
        support_shots: How many images of ``support_dir`` to take; None for all.
        support_selection: Which of them, and which of a target's normal images in `FewShotTasks`: ``random``, or
            ``diverse`` for images far from one another in the teacher's features.
        support_window: Which values of DICOM and NIfTI files in ``support_dir`` become black and white: as for the
            images to score.
        seed: Fixes initial weights, data order and the choice of support images; None leaves the first two to the
            global random state.
        pre_processor: Pre-processor, or True for resizing and what ``normalize`` says.
        post_processor: A `MedicalPostProcessor`, True for one at 95% specificity, or False for raw scores.
        evaluator: Evaluator, or True for anomalib's default metrics.
        visualizer: Visualizer, or True for anomalib's default one.
    """

    score_arguments = DistillationMixin.score_arguments | {"normalize", *_COMPARING}
    # Whether the data is of one task, without episodes.
    learns_one_task = False
    # Batches of an epoch that had nothing to learn from.
    _skipped = 0
    _warned_of_skipping = False

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        image_size: int | tuple[int, int] = 128,
        pre_trained: bool = True,
        teacher_weights: str | None = None,
        layers: tuple[int, ...] | None = None,
        normalize: bool = True,
        weighting: Literal["learned", "none"] = "learned",
        matching: Matching = "aligned",
        window: float = 1.0,
        features: Features = "student",
        ssd_weight: float = 1.0,
        tsd_weight: float = 0.1,
        stop_gradient: bool = False,
        score_reduction: Literal["mean", "max", "top_k", "auto"] = "max",
        map_normalization: Literal["none", "pixel"] = "none",
        top_share: float = TOP_SHARE,
        learning_rate: float = 1e-4,
        support_dir: str | None = None,
        support_shots: int | None = None,
        support_selection: Literal["random", "diverse"] = "random",
        support_window: str | tuple[float, float] | None = None,
        seed: int | None = 0,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # Rebound, because this is what the checkpoint keeps: it takes plain numbers only.
        layers, image_size = check_pyramid(backbone, layers, SCALES + 1, image_size)
        check_choice("weighting", weighting, ("learned", "none"))
        check_choice("matching", matching, ("aligned", "nearest"))
        check_choice("features", features, ("student", "teacher", "both"))
        if not 0 <= window <= 1 or (matching == "aligned" and window != 1):
            msg = f"window: got {window} with matching {matching}, expected 0 to 1 with nearest (and 1 with aligned)."
            raise ValueError(msg)
        check_score(score_reduction, map_normalization, top_share)
        check_choice("support_selection", support_selection, ("random", "diverse"))
        check_seed(seed)
        if min(ssd_weight, tsd_weight) < 0 or ssd_weight + tsd_weight == 0:
            msg = f"ssd_weight, tsd_weight: got {ssd_weight} and {tsd_weight}, expected 0 or more, not both 0."
            raise ValueError(msg)
        if support_shots is not None and (support_shots < 1 or support_dir is None):
            msg = (
                f"support_shots: got {support_shots} with support_dir {support_dir}, expected 1 or more, and a folder."
            )
            raise ValueError(msg)
        if not isinstance(post_processor, bool) and not takes_normals(post_processor):
            msg = (
                f"post_processor: got {type(post_processor).__name__}, expected a MedicalPostProcessor with threshold: "
                "specificity, or false: of a new task a few normal images are known and no anomaly."
            )
            raise ValueError(msg)
        folder, shots, read_with = support_dir, support_shots, Window.of(support_window)
        # Rebound too: a checkpoint holds its support, and where that came from is no part of it.
        support_dir = support_shots = support_window = None
        if pre_processor is True:
            pre_processor = self.teacher_pre_processor(backbone, image_size, normalize=normalize)
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        self.pre_trained, self.teacher_weights = pre_trained, teacher_weights
        self.stop_gradient = stop_gradient
        self.learning_rate = learning_rate
        self.support_dir, self.support_shots, self.support_window = folder, shots, read_with
        self.support_selection = support_selection
        self.seed = seed
        #: What is kept of the support images that the model holds; no names.
        self.support_record: dict[str, Any] = record_of([])
        self.support_names: list[str] = []
        #: The support that wins over the checkpoint's and the data's, once it is read.
        self.explicit_support: Pictures | None = None
        # One vector for each image of the support that was encoded last, none for a checkpoint's.
        self.support_embeddings: torch.Tensor | None = None
        with seeded(seed):
            self.model: D24fadModel = D24fadModel(
                backbone,
                weighting,
                MapScore(score_reduction, map_normalization, top_share, "max"),
                layers,
                image_size,
                matching,
                window,
                features,
            )
        self.loss = D24fadLoss(ssd_weight, tsd_weight)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One batch where nothing is learned: what is left to do is the support and the threshold."""
        return {} if self.model.learns else {"max_epochs": 1, "limit_train_batches": 1}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's
        """Adam, or None where nothing is learned."""
        return super().configure_optimizers() if self.model.learns else None

    def configure_callbacks(self) -> list[Callback]:
        """Take the wanted support last: what others have set for the tasks that train is overridden."""
        return [*super().configure_callbacks(), WantedSupport()]

    def on_train_epoch_start(self) -> None:
        """Count anew what cannot be learned from."""
        super().on_train_epoch_start()
        self._skipped = 0

    def _apply_batch_transfer_handler(self, batch: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
        """Find out who is compared with whom as long as the batch is on the host."""
        # Not in one of Lightning's hooks: it warns of each that a model has beside a datamodule.
        pairs = Pairs.of(batch) if self.trainer.training or getattr(batch, "support", None) is not None else None
        batch = super()._apply_batch_transfer_handler(batch, *args, **kwargs)
        if pairs is not None:
            batch.pairs = pairs.to(self.device)
        return batch

    def training_step(self, batch: ImageBatch, batch_idx: int) -> torch.Tensor | None:
        """One step on normalised queries ``(B, 3, H, W)`` with their supports ``(B, K, 3, H, W)`` in [0, 1].

        Without supports, on queries with those of other patients in the batch; `no_loss` where there is no other.
        """
        del batch_idx
        if not self.model.learns:
            return torch.zeros((), device=self.device, requires_grad=True)
        if not any(Pairs.in_batch(batch, self.device).counts):
            self._skip(batch)
            return self.no_loss()
        loss = self._loss(self._episode(batch))
        self.log("train_loss", loss.detach(), on_epoch=True, prog_bar=True, batch_size=batch.batch_size)
        return loss

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401 - Lightning's
        """Score a batch, in place: queries of episodes against their own supports, all others against the model's."""
        if getattr(batch, "support", None) is None:
            return super().validation_step(batch, *args, **kwargs)
        features = self._episode(batch)
        if self.model.learns:
            self.log("val_loss", self._loss(features), batch_size=batch.batch_size, sync_dist=True)
        predictions = self.model.compare(features.levels, features.support, features.pairs)
        updated: STEP_OUTPUT = batch.update(**predictions._asdict())
        return updated

    @property
    def has_maps_of_the_target(self) -> bool:
        """Whether normal images are validated against the model's own support: not those of tasks that train."""
        of_tasks = hasattr(getattr(self.trainer, "datamodule", None), "target_support")
        return self.learns_one_task or (self.trainer.state.fn != TrainerFn.FITTING and not of_tasks)

    def anomaly_maps(self, images: torch.Tensor, items: Sequence[Any]) -> torch.Tensor:
        """Maps of queries against the supports of their episodes, of other images against the model's."""
        if getattr(items[0], "support", None) is None:
            return super().anomaly_maps(images, items)
        episode = {name: torch.stack([getattr(item, name) for item in items]) for name in ("support", "support_index")}
        features = self._episode(MedicalImageBatch(image=images, **episode))  # type: ignore[arg-type]  # fields of ours
        maps: torch.Tensor = self.model.compare(features.student, features.support).anomaly_map  # type: ignore[assignment]
        return maps

    def _episode(self, batch: ImageBatch) -> EpisodeFeatures:
        support: torch.Tensor | None = getattr(batch, "support", None)
        queries: torch.Tensor = batch.image  # type: ignore[assignment]  # a batch has images
        pairs = Pairs.in_batch(batch, self.device)
        images = None if support is None else self.prepare(support.flatten(0, 1)[pairs.first])
        return self.model.episode(queries, images, pairs, stop_gradient=self.stop_gradient)

    def _loss(self, features: EpisodeFeatures) -> torch.Tensor:
        tsd = feature_distances(features.student, features.teacher)
        loss: torch.Tensor = self.loss(self.model.self_distances(features), tsd)
        return loss

    def _skip(self, batch: ImageBatch) -> None:
        """Say once that a batch has nothing to compare with; if no batch of an epoch has, it is an error."""
        msg = (
            f"A batch has {counted(batch.batch_size, 'image')} and no two patients to compare: D24fad learns within a "
            "task from batches of several patients. Give a larger --data.train_batch_size (or, of several tasks, "
            "--data anomalib_medical.FewShotTasks)."
        )
        self._skipped += 1
        if self._skipped >= self.trainer.num_training_batches:
            raise ValueError(msg)
        if not self._warned_of_skipping:
            logger.warning("%s Batches like it are left out.", msg)
        self._warned_of_skipping = True

    def set_support(
        self, images: Iterable[torch.Tensor], record: dict[str, Any] | None = None, names: Sequence[str] = ()
    ) -> None:
        """Compare with other normal images from now on, also after a checkpoint is loaded.

        The threshold of the former support is dropped: raw scores and no labels come out until :meth:`recalibrate`. Of
        a folder: ``model.set_support(*read_support(folder))``.

        Args:
            images: ``(K, 3, H, W)`` or K images ``(3, H_k, W_k)``, in [0, 1].
            record: What is kept of them; None for the sha256 of their values.
            names: What warnings call them; never saved.

        Raises:
            ValueError: If there are none, or they are no such images.
        """
        given = pictures_in_memory(images, "support image")
        self.explicit_support = given if record is None else Pictures(given.images, record, list(names))
        self.support_dir = None
        self.take_support(self.explicit_support)

    # What is kept must serve graphs and further training too; Lightning tests and predicts in inference mode.
    @torch.inference_mode(mode=False)
    def take_support(self, support: Pictures, *, warn: bool = True) -> None:
        """Encode a support into the model; if it is another one than before, forget what belonged to that."""
        prepared = [self.prepare(image[None].to(self.device)) for image in support.images]
        if len({image.shape for image in prepared}) > 1:
            sizes = ", ".join(f"{image.shape[-2]}x{image.shape[-1]}" for image in prepared)
            msg = f"The support images have different sizes ({sizes}), and no pre-processor resizes them."
            raise ValueError(msg)
        images = torch.cat(prepared)
        is_another = self.model.support.fill(self.model.encode_support(images))
        if is_another:
            self.map_score.reset()
            if isinstance(self.post_processor, MedicalPostProcessor):
                self.post_processor.invalidate()
        self.support_embeddings = embed(self.model.teacher(images))
        self.support_record, self.support_names = support.record, support.names
        if warn:
            warn_of_outliers(self)

    def recalibrate(self, normals: Iterable[torch.Tensor] | None = None) -> None:
        """Set threshold and score range for the support that the model holds.

        Args:
            normals: Held-out normal images of the same task, each ``(3, H, W)`` in [0, 1], see `read_normals`. None for
                what is left without any: each support image against the others. As these are one fewer, scores are a
                little high, and so is the threshold.

        Raises:
            ValueError: If there are too few images, or there is nothing to calibrate.
        """
        if not takes_normals(self.post_processor):
            kind = type(self.post_processor).__name__
            msg = f"The post-processor is {kind}, expected a MedicalPostProcessor with threshold: specificity."
            raise ValueError(msg)
        if normals is None and len(self.model.support) < 2:
            held = counted(len(self.model.support), "image")
            msg = f"The support holds {held}, expected at least 2 to leave one out: give held-out normal images."
            raise ValueError(msg)
        if normals is None and self.map_score.normalizes:
            msg = (
                "map_normalization: pixel needs held-out normal images of the task; the support images, each against "
                f"the others, are too few and too alike. Give normals (at least {FEWEST_NORMALS}; `anomalib-medical "
                "retarget --normals_dir`), or train with map_normalization: none."
            )
            raise ValueError(msg)
        if self.map_score.normalizes:
            # Whatever fails below, no threshold of standardised maps is left with maps that are not.
            self.map_score.reset()
            self.post_processor.invalidate()
        each = [self.model.leave_one_out()] if normals is None else list(score_each(self, normals))
        if not each:
            msg = "Got 0 normal images, expected at least 1 to take the threshold from."
            raise ValueError(msg)
        scores, maps = (torch.cat([getattr(one, name) for one in each]) for name in ("pred_score", "anomaly_map"))
        if self.map_score.normalizes:
            self.map_score.fit([maps])
            scored = self.map_score.leave_out(self.map_score(maps), torch.ones_like(scores, dtype=torch.bool))
            scores, maps = scored.pred_score, scored.anomaly_map  # type: ignore[assignment]  # it gives both
            self.map_score.normals = None
        self.post_processor.calibrate(scores, maps.amin((1, 2, 3)), maps.amax((1, 2, 3)))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's
        """Load weights and support; an explicit support is encoded anew with the weights."""
        result = super().load_state_dict(state_dict, strict, assign)
        if (support := read_explicit(self)) is not None:
            self.take_support(support)
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the record of the support."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["support_record"] = self.support_record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the checkpoint's support, of however many images."""
        self.model.support.fit_to(checkpoint["state_dict"], "model.support.")
        checkpoint["hyper_parameters"] = _COMPARING | checkpoint.get("hyper_parameters", {})
        super().on_load_checkpoint(checkpoint)
        if isinstance(self.post_processor, MedicalPostProcessor):
            # Lightning keeps the threshold a second time, as a callback's state, and would put it back after an
            # explicit support has dropped it.
            checkpoint.get("callbacks", {}).pop(self.post_processor.state_key, None)
        self.support_record, self.support_names = checkpoint.get("support_record", record_of([])), []

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export for torch, without the support's pixels and file names."""
        hidden: dict[str, Any] = {"explicit_support": None, "support_names": [], "support_dir": None}
        held = {name: vars(self)[name] for name in hidden}
        vars(self).update(hidden)
        try:
            return super().to_torch(export_root, model_file_name)
        finally:
            vars(self).update(held)
