"""What the Lightning modules of the distillation models share."""

import logging
from typing import Any

import torch
from anomalib.data.transforms.utils import extract_transforms_by_type
from torchvision.transforms.v2 import Normalize

from anomalib_medical.models.components.module import MedicalModuleMixin
from anomalib_medical.models.components.teacher import Teacher

logger = logging.getLogger(__name__)


class DistillationMixin(MedicalModuleMixin):
    """A frozen teacher, whose weights come from the hub, a file, or nowhere.

    A class that uses it keeps ``pre_trained`` and ``teacher_weights`` as attributes, and its network has a ``teacher``.
    """

    pre_trained: bool
    teacher_weights: str | None
    # What the teacher's weights are: a hub name, a file's sha256, or None as long as they are random.
    teacher_source: str | None = None

    def on_fit_start(self) -> None:
        """Load the teacher's weights, unless a checkpoint brought them.

        Not in the constructor, and after checkpoints are restored, so that testing, predicting, exporting and resuming
        never need the file or the hub.
        """
        super().on_fit_start()
        if not self._restored:
            self.load_teacher()
            self._restored = True

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

    @property
    def input_scale(self) -> torch.Tensor:
        """One over the pre-processor's standard deviations, ``(3,)``: what 1 in the image is to the network."""
        transform = getattr(self.pre_processor, "transform", None)
        steps = extract_transforms_by_type(transform, Normalize) if transform is not None else []
        return 1 / torch.tensor(steps[0].std if steps else [1.0, 1.0, 1.0], device=self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say where the teacher came from."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher_source"] = self.teacher_source

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the teacher over."""
        super().on_load_checkpoint(checkpoint)
        self.teacher_source = checkpoint.get("teacher_source")
