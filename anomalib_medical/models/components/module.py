"""What the Lightning modules of this package share."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.data.utils import LabelName
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Normalize, Resize
from tqdm import tqdm

from anomalib_medical.data.visualizer import MedicalVisualizer
from anomalib_medical.metrics.evaluator import MedicalEvaluator
from anomalib_medical.post_processing import MedicalPostProcessor, tested_validation_images

from .arguments import check_precision
from .checkpoints import RunFiles, check_arguments, check_class, describe
from .divergence import StopOnDivergence, refuse_broken_weights
from .map_score import FEWEST_NORMALS, MOST_NORMALS, MapScore, synthetic_anomalies, too_few_normals
from .numerics import derived_seed
from .processes import Processes, check_processes, undealt

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    # anomalib's registries look at direct subclasses of AnomalibModule: shared code has to be a mixin.
    _Module = object

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# What torch writes. anomalib asks for 14: converting back fails, is reported with a traceback, and 18 comes out.
OPSET = 18
# Axes of an exported graph for one image of any height and width at a time: some of anomalib's models are exported for
# two at a time otherwise, or not at all.
ONE_IMAGE = {"input": {2: "height", 3: "width"}}
# Where the validation's own is of no fixed size.
_BATCH_SIZE = 16


class MedicalModuleMixin(_Module):
    """Pre- and post-processing, seeds and checkpoints of a model.

    A class that uses it names it before ``AnomalibModule`` among its bases, and keeps ``seed`` as an attribute and its
    network, which ends with a `MapScore` named ``map_score``, as ``self.model``.
    """

    seed: int | None
    # Whether a checkpoint brought the weights.
    _restored = False
    _check_val_every_n_epoch: int | None = 1
    _resumed_from: str | Path | None = None
    # Hyper-parameters that leave the tensors as they are and change what a score or its threshold means.
    score_arguments: ClassVar[frozenset[str]] = frozenset(
        {"image_size", "score_reduction", "map_normalization", "top_share"}
    )

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize (to 256 by 256 by default) and normalise with ImageNet statistics.

        Without antialiasing: the exported graph cannot antialias, and scores would differ between it and the engine.
        """
        resize = Resize(image_size or (256, 256), antialias=False)
        return PreProcessor(Compose([resize, Normalize(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD))]))

    @classmethod
    def configure_visualizer(cls) -> ImageVisualizer:
        """Draw heatmaps on what our readers read: DICOM, NIfTI and 16 bits too."""
        return MedicalVisualizer()

    def configure_post_processor(self) -> PostProcessor | None:
        """Take the threshold from held-out normal images."""
        return MedicalPostProcessor()

    @property
    def learning_type(self) -> LearningType:
        """One-class: anything else is never trained by anomalib's engine."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """None: whatever stood here would override the user's ``--trainer`` arguments."""
        return {}

    def configure_callbacks(self) -> list[Callback]:
        """Stop where numbers end, in training and in the table of metrics, and keep the run's files in order."""
        self.evaluator = MedicalEvaluator.of(self.evaluator)  # type: ignore[arg-type]  # it is one, or None
        return [Processes(), RunFiles(), StopOnDivergence(), *super().configure_callbacks()]  # type: ignore[misc]  # anomalib's is a list

    def setup(self, stage: str) -> None:
        """Check precision and processes and, when training starts, seed."""
        check_precision(self.trainer.precision)
        check_processes(self.trainer, self)
        if stage == "fit":
            self._check_held_out_normals()
            if self.seed is not None:
                seed_everything(self.seed, workers=True, verbose=False)

    def _check_held_out_normals(self) -> None:
        """Say now what the first validation would stumble over."""
        samples = getattr(getattr(getattr(self.trainer, "datamodule", None), "val_data", None), "samples", None)
        wanted = {
            "score_reduction: auto": self.map_score.chooses,
            "map_normalization: pixel": self.map_score.normalizes and self.has_maps_of_the_target,
        }
        if samples is not None:
            count = int((samples.label_index == LabelName.NORMAL).sum())
            for argument in (name for name, needed in wanted.items() if needed and count < FEWEST_NORMALS):
                raise too_few_normals(count, argument)

    def on_fit_start(self) -> None:
        """Say so if thresholds would come from the test set."""
        super().on_fit_start()
        self._resumed_from = self.trainer.ckpt_path
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        shared = tested_validation_images(self.trainer)
        if shared and not getattr(datamodule, "tells_what_validation_sees", False):
            logger.warning(
                "%s validates on its test set (files in both: %d): the threshold has seen the images that the test "
                "counts. Set --data.val_split_mode from_train (now %s).",
                type(datamodule).__name__,
                shared,
                getattr(datamodule, "val_split_mode", "unknown"),
            )

    def on_fit_end(self) -> None:
        """Say whether another run would give the same."""
        super().on_fit_end()
        seed, another = ("without a seed:", "training") if self.seed is None else (f"with seed {self.seed};", "seed")
        if self.map_score.choice is not None:
            logger.info("%s.", self.map_score.choice)
        logger.info("Trained %s another %s gives other scores.", seed, another)

    def on_test_start(self) -> None:
        """Say so if what is tested is not what was trained."""
        super().on_test_start()
        if self._resumed_from is not None and self.trainer.ckpt_path == self._resumed_from:
            logger.warning(
                "This tests %s, from which training went on, not the new weights (anomalib's Engine.train does so). "
                "For those: engine.test(model, datamodule=...) without ckpt_path, or `anomalib-medical train`.",
                self._resumed_from,
            )

    def on_train_start(self) -> None:
        """Leave evaluation mode, and see to it that the weights that training ends with are validated."""
        super().on_train_start()
        # Exporting, for one, needs the evaluation mode, and Lightning keeps the mode that it finds.
        self.model.train()
        self._check_val_every_n_epoch = self.trainer.check_val_every_n_epoch
        self._validate_after_last_epoch()

    def on_train_end(self) -> None:
        """Give the trainer its own setting back."""
        super().on_train_end()
        self.trainer.check_val_every_n_epoch = self._check_val_every_n_epoch

    def _validate_after_last_epoch(self) -> None:
        """Validate after the last epoch whatever ``check_val_every_n_epoch`` says.

        Validation sets the threshold, and anomalib writes a checkpoint with it: the last weights are to have both.
        """
        is_last = self.current_epoch + 1 == self.trainer.max_epochs
        if is_last and self.trainer.check_val_every_n_epoch is not None:
            self.trainer.check_val_every_n_epoch = 1

    def on_train_epoch_start(self) -> None:
        """Draw the epoch's data order from seed and epoch, so that a resumed run does not repeat the first epochs'.

        The first epoch of a run, resumed or not, is the exception: Lightning draws its order before this hook.
        """
        super().on_train_epoch_start()
        self._validate_after_last_epoch()
        if self.seed is not None:
            torch.default_generator.manual_seed(derived_seed(self.seed, self.current_epoch))

    def no_loss(self) -> torch.Tensor | None:
        """What a training step gives that has nothing to learn from: None, or 0 where other processes have a loss."""
        if self.trainer.world_size == 1:
            return None
        # The others wait for this one's share of the gradients.
        return torch.stack([0 * each.sum() for each in self.parameters() if each.requires_grad]).sum()

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and normalise images ``(B, 3, H, W)`` in [0, 1] as the engine does."""
        transform = getattr(self.pre_processor, "transform", None)
        return images if transform is None else transform(images)

    def on_validation_epoch_start(self) -> None:
        """Fit what scores need of held-out normal images, before any threshold is taken from them."""
        super().on_validation_epoch_start()
        is_fitted_to_normals = self.map_score.normalizes or self.map_score.chooses
        if is_fitted_to_normals and not self.trainer.sanity_checking:
            self.fit_map_score()

    @torch.inference_mode(mode=False)  # what is fitted must serve further training too
    @torch.no_grad()
    def fit_map_score(self) -> None:
        """Fit the standardisation of the maps, and in a training choose the reduction, as far as they are wanted."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        with self.trainer.precision_plugin.val_step_context():
            if self.map_score.normalizes and self.has_maps_of_the_target:
                self.map_score.reset()
                self.map_score.fit(self.anomaly_maps(*batch) for batch in self._held_out_normals())
            if self.map_score.chooses and fitting:
                self._choose_reduction()

    def _choose_reduction(self) -> None:
        """Choose by synthetic anomalies of a few held-out normal images; the same ones at every validation."""
        batches = list(self._held_out_normals(MOST_NORMALS))
        sizes, items = [len(images) for images, _ in batches], [each for _, each in batches]
        if sum(sizes) < FEWEST_NORMALS:
            raise too_few_normals(sum(sizes), "score_reduction: auto")

        def maps_of(images: torch.Tensor) -> torch.Tensor:
            parts = torch.split(images, sizes)
            return torch.cat([self.anomaly_maps(*batch) for batch in zip(parts, items, strict=True)])

        normal = torch.cat([images for images, _ in batches])
        anomalous = synthetic_anomalies(normal, self.input_scale, self.seed or 0)
        self.map_score.choose(maps_of(normal), map(maps_of, anomalous))
        self.map_score.reduction = self.trainer.strategy.broadcast(self.map_score.reduction)

    def anomaly_maps(self, images: torch.Tensor, items: Sequence[Any]) -> torch.Tensor:
        """Maps ``(B, 1, H, W)`` of prepared images ``(B, 3, H, W)``, which are of these items of a dataset."""
        del items
        maps: torch.Tensor = self.model(images).anomaly_map
        return maps

    @property
    def has_maps_of_the_target(self) -> bool:
        """Whether what is validated is of the kind that will be scored."""
        return True

    @property
    def input_scale(self) -> torch.Tensor:
        """What 1 in the image is to the network, for each channel ``(3,)``."""
        return torch.ones(3, device=self.device)

    def _held_out_normals(self, most: int | None = None) -> Iterator[tuple[torch.Tensor, list[Any]]]:
        """Prepared normal images of the validation set and their items, a batch at a time; some of them, or all."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        # Not the trainer's own: every process is to see all of them, and then finds the same.
        given: Any = self.trainer.val_dataloaders if datamodule is None else datamodule.val_dataloader()
        left = math.inf if most is None else most
        for loader in given if isinstance(given, list) else [given]:
            rows = undealt(loader.sampler)
            if most is not None:
                order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed or 0))
                rows = [rows[index] for index in order]
            batches = DataLoader(
                loader.dataset,
                batch_size=loader.batch_size or _BATCH_SIZE,
                sampler=rows,
                num_workers=loader.num_workers,
                collate_fn=list,
                generator=torch.Generator(),  # leaves the global one, and so the training, as it was
            )
            progress = self.trainer.progress_bar_callback is not None
            for batch in tqdm(
                batches, desc="Normal images", unit="batch", disable=None if progress else True, leave=False
            ):
                normals = [item for item in batch if not item.gt_label][: int(min(left, len(batch)))]
                left -= len(normals)
                if normals:
                    yield torch.cat([self.prepare(item.image[None].to(self.device)) for item in normals]), normals
                if left <= 0:
                    return

    def on_validation_epoch_end(self) -> None:
        """Forget which images the score was fitted to: whatever is scored from now on is new to it."""
        super().on_validation_epoch_end()
        self.map_score.normals = None

    @property
    def map_score(self) -> MapScore:
        """What makes a score of a map."""
        score: MapScore = self.model.map_score  # type: ignore[assignment]  # every network of ours ends with one
        return score

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401 - Lightning's
        """Score a batch, in place: the evaluator reads it."""
        del args, kwargs
        scored: STEP_OUTPUT = batch.update(**self._held_out(batch, self.model(batch.image))._asdict())
        return scored

    def _held_out(self, batch: ImageBatch, scored: InferenceBatch) -> InferenceBatch:
        """Score images of the validation set as if the score had not been fitted to them."""
        labels = batch.gt_label
        normal = torch.ones(len(scored.pred_score), dtype=torch.bool) if labels is None else ~labels.bool()  # type: ignore[arg-type]
        return self.map_score.leave_out(scored, normal.to(self.device))

    def to_onnx(self, *args: Any, **kwargs: Any) -> Path:  # type: ignore[override]  # as anomalib's  # noqa: ANN401
        """Export to ONNX, of which anomalib makes OpenVINO's graphs too."""
        path: Path = super().to_onnx(*args, **{"opset_version": OPSET} | kwargs)
        return path

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the evaluator's state out, and write down what commands without ``--model`` need."""
        super().on_save_checkpoint(checkpoint)
        refuse_broken_weights(self, checkpoint["state_dict"])
        checkpoint["state_dict"] = {
            key: value for key, value in checkpoint["state_dict"].items() if not key.startswith("evaluator.")
        }
        describe(checkpoint, self)
        if self.map_score.chooses:
            checkpoint["chosen_reduction"] = self.map_score.reduction

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits this model, and put the evaluator's own state back."""
        check_class(checkpoint, type(self))
        self.map_score.fit_to(checkpoint["state_dict"], "model.map_score.")
        if self.map_score.chooses:
            self.map_score.reduction = checkpoint.get("chosen_reduction", self.map_score.default)
        check_arguments(checkpoint, self)
        super().on_load_checkpoint(checkpoint)
        # Without a post-processor its threshold stays behind, and raw scores come out.
        foreign = ("evaluator.",) if self.post_processor is not None else ("evaluator.", "post_processor.")
        state = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(foreign)}
        state |= {key: value for key, value in self.state_dict().items() if key.startswith("evaluator.")}
        checkpoint["state_dict"] = state
        self._restored = True
