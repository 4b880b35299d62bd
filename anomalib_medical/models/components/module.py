"""What the Lightning modules of this package share."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anomalib import LearningType
from anomalib.data import ImageBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_medical.models.components.teacher import Teacher
from anomalib_medical.post_processing import MedicalPostProcessor
from anomalib_medical.visualization import MedicalVisualizer

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    # anomalib's registries look at direct subclasses of AnomalibModule: shared code has to be a mixin.
    _Module = object

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class MedicalModuleMixin(_Module):
    """Pre- and post-processing, teacher weights, seeds and checkpoints of a distillation model.

    A class that uses it names it before ``AnomalibModule`` among its bases, keeps ``pre_trained``,
    ``teacher_weights`` and ``seed`` as attributes and its network, with a ``teacher``, as ``self.model``.
    """

    pre_trained: bool
    teacher_weights: str | None
    seed: int | None
    # What the teacher's weights are: a hub name, a file's sha256, or None as long as they are random.
    teacher_source: str | None = None
    # Whether the teacher has its weights already.
    _restored = False

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize and normalise with ImageNet statistics.

        Without antialiasing: the exported graph cannot antialias, and scores would differ between it and the engine.

        Args:
            image_size: Height and width, 256 by 256 by default.
        """
        size = image_size or (256, 256)
        return PreProcessor(
            Compose([Resize(size, antialias=False), Normalize(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD))]),
        )

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

    def setup(self, stage: str) -> None:
        """Seed, when training starts.

        Args:
            stage: Lightning's stage.
        """
        if stage == "fit" and self.seed is not None:
            seed_everything(self.seed, workers=True, verbose=False)

    def on_fit_start(self) -> None:
        """Load the teacher's weights, unless a checkpoint brought them.

        Not in the constructor, and after checkpoints are restored, so that testing, predicting, exporting and resuming
        never need the file or the hub.
        """
        super().on_fit_start()
        if not self._restored:
            self.load_teacher()
            self._restored = True

    def on_train_epoch_start(self) -> None:
        """Draw the epoch's data order from seed and epoch, so that a resumed run does not repeat the first epochs'.

        The first epoch of a run, resumed or not, is the exception: Lightning draws its order before this hook.
        """
        super().on_train_epoch_start()
        if self.seed is not None:
            source = np.random.SeedSequence([self.seed, self.current_epoch])
            torch.default_generator.manual_seed(int(source.generate_state(1)[0]))

    def load_teacher(self) -> None:
        """Give the teacher the weights that the arguments name: a file's, the hub's, or none.

        Raises:
            TeacherWeightsError: If they cannot be had.
        """
        teacher: Teacher = self.model.teacher  # type: ignore[assignment]  # every model of ours has one
        if self.teacher_weights is not None:
            self.teacher_source = "sha256:" + teacher.load_file(self.teacher_weights)
        elif self.pre_trained:
            self.teacher_source = teacher.load_hub()
        else:
            logger.warning("The teacher has random weights (pre_trained: false and no teacher_weights).")

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401 - Lightning's
        """Score a batch, in place: the evaluator reads it."""
        del args, kwargs
        predictions = self.model(batch.image)
        updated: STEP_OUTPUT = batch.update(**predictions._asdict())
        return updated

    @property
    def input_scale(self) -> torch.Tensor:
        """One over the pre-processor's standard deviations, ``(3,)``: what 1 in the image is to the network."""
        transform = getattr(self.pre_processor, "transform", None)
        steps = extract_transforms_by_type(transform, Normalize) if transform is not None else []
        return 1 / torch.tensor(steps[0].std if steps else [1.0, 1.0, 1.0], device=self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the evaluator's state out and say where the teacher came from."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = {
            key: value for key, value in checkpoint["state_dict"].items() if not key.startswith("evaluator.")
        }
        checkpoint["teacher_source"] = self.teacher_source
        checkpoint["post_processor_class"] = type(self.post_processor).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits this model, and put the evaluator's own state back.

        Raises:
            ValueError: If the checkpoint is of another architecture.
        """
        self._check_architecture(checkpoint)
        ours = isinstance(self.post_processor, MedicalPostProcessor)
        if ours and checkpoint.get("post_processor_class") == PostProcessor.__name__:
            # A model trained with anomalib's own post-processor keeps its threshold and its normalisation.
            self.post_processor.threshold = "f1"  # type: ignore[union-attr]  # it is ours
        super().on_load_checkpoint(checkpoint)
        # Without a post-processor its threshold stays behind, and raw scores come out.
        foreign = ("evaluator.",) if self.post_processor is not None else ("evaluator.", "post_processor.")
        state = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(foreign)}
        state |= {key: value for key, value in self.state_dict().items() if key.startswith("evaluator.")}
        checkpoint["state_dict"] = state
        self.teacher_source = checkpoint.get("teacher_source")
        self._restored = True

    def _check_architecture(self, checkpoint: dict[str, Any]) -> None:
        """Compare tensors and what else scores depend on, before torch lists every tensor or scores come out wrong."""
        saved = {key: value.shape for key, value in checkpoint["state_dict"].items() if key.startswith("model.")}
        own = {key: value.shape for key, value in self.state_dict().items() if key.startswith("model.")}
        theirs = checkpoint.get("hyper_parameters", {})
        differing = {
            key: (theirs[key], value)
            for key, value in self.hparams.items()
            if key in theirs and _plain(theirs[key]) != _plain(value)
        }
        # A threshold holds for scores of one kind and images of one size.
        if saved == own and not differing.keys() & {"image_size", "score_reduction"}:
            return
        told = "; ".join(f"{key}: checkpoint {had!r}, this model {has!r}" for key, (had, has) in differing.items())
        options = " ".join(f"--model.{key} {had}" for key, (had, _) in differing.items())
        msg = (
            f"The checkpoint is not of this {type(self).__name__} ({told or 'its tensors differ'}). Build the model "
            f"with the checkpoint's arguments: {options or 'those it was trained with'}."
        )
        raise ValueError(msg)


def _plain(value: object) -> object:
    """Make lists and tuples of one content equal."""
    return tuple(value) if isinstance(value, list | tuple) else value
