"""The two training steps that `scrd_step.py` compares. Both start from raw images and end after Adam's step."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import opensimplex
import torch
from torch.nn import functional

from anomalib_medical import Scrd

if TYPE_CHECKING:
    from collections.abc import Sequence

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        schedule: ``ours`` or ``released``.
        half: bf16 mixed precision with channels_last; otherwise float32.
        compiled: Compile the network.
    """

    schedule: str
    half: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        """Name for the table."""
        precision = "bf16-mixed, channels_last" if self.half else "float32"
        return f"{self.schedule}, {precision}" + (", compiled" if self.compiled else "")


class Step:
    """A model with its optimizer. Calling it trains on one batch; ``noise_seconds`` sums the time for noise."""

    def __init__(self, setting: Setting, backbone: str, image_size: int, device: torch.device) -> None:
        self.setting = setting
        self.device = device
        self.noise_seconds = 0.0
        self.module = Scrd(
            backbone=backbone, image_size=image_size, pre_trained=False, seed=0, evaluator=False, visualizer=False
        )
        self.module.to(device).train()
        if setting.half:
            self.module.model.to(memory_format=torch.channels_last)
        self.optimizer = self.module.configure_optimizers()
        self.rng = np.random.default_rng(0)
        self.count = 0
        self.unused: Sequence[torch.Tensor] = []
        if setting.compiled:
            self.module.model.compile()

    def __call__(self, images: torch.Tensor) -> float:
        """Train on images ``(B, 3, H, W)`` in [0, 1] on the CPU; returns the loss."""
        compute = self._ours if self.setting.schedule == "ours" else self._released
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.setting.half):
            loss = compute(images)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.unused = []
        self.count += 1
        # Waits for the device, so that the caller's clock sees the whole step.
        return float(loss)

    def _to_device(self, images: torch.Tensor) -> torch.Tensor:
        layout = torch.channels_last if self.setting.half else torch.contiguous_format
        return images.to(self.device, memory_format=layout)

    def _ours(self, images: torch.Tensor) -> torch.Tensor:
        """Call the module's own training step, as Lightning does."""
        images = self._to_device((images - MEAN) / STD)
        add_noise = Scrd.add_noise.__get__(self.module)

        def timed(*arguments: object) -> torch.Tensor:
            started = self._clock()
            noisy = add_noise(*arguments)
            self.noise_seconds += self._clock() - started
            return noisy

        self.module.add_noise = timed
        return self.module.training_step(_Images(images, len(images)), self.count)

    def _released(self, images: torch.Tensor) -> torch.Tensor:
        """Compute what the released code does in a step, written from its description (docs of the method)."""
        started = self._clock()
        noisy = torch.stack([noise_one(image, self.rng) for image in images])
        self.noise_seconds += self._clock() - started
        clean_images, noisy_images = (self._to_device((batch - MEAN) / STD) for batch in (images, noisy))
        model = self.module.model
        with torch.no_grad():
            clean = model.teacher(clean_images)
            corrupted = model.teacher(noisy_images)
        embedding = model.bottleneck(clean)
        student = model.decoder(embedding)
        # The student's answer to the noisy image is computed and not used; its graph lives as long as its variable.
        self.unused = model.decoder(model.bottleneck(corrupted))
        weights = functional.softmax(model.scale_adaptation.linear(embedding.amax(dim=(-2, -1))), dim=1)
        return _flat_distance(clean, student, weights) / _flat_distance(corrupted, student, weights)

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass
class _Images:
    """The part of anomalib's batch that the training step reads."""

    image: torch.Tensor
    batch_size: int


def noise_one(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Add a rectangle of fractal simplex noise to one image, one sample at a time as a data set does.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        rng: Draws the rectangle.

    Returns:
        The noisy image: 6 octaves, persistence 0.6, first wavelength 32 pixels, strength 0.2.
    """
    side = image.shape[-1]
    height, width = rng.integers(10, max(11, side // 8), size=2)
    top, left = rng.integers(0, side - height), rng.integers(0, side - width)
    opensimplex.seed(int(rng.integers(2**31)))
    noise = np.zeros((3, height, width))
    for octave in range(6):
        wavelength = 32 / 2**octave
        axes = (np.arange(length) / wavelength for length in (width, height, 3))
        noise += 0.6**octave * opensimplex.noise3array(*axes)
    noisy = image.clone()
    noisy[:, top : top + height, left : left + width] += 0.2 * torch.from_numpy(noise).float()
    return noisy


def _flat_distance(
    teacher: "Sequence[torch.Tensor]", student: "Sequence[torch.Tensor]", weights: torch.Tensor
) -> torch.Tensor:
    """Sum over scales of the mean ``1 - cos`` of weighted features, flattened per image."""
    total = torch.zeros((), device=weights.device)
    for scale, (target, answer) in enumerate(zip(teacher, student, strict=True)):
        weight = weights[:, scale, None, None, None]
        similarity = functional.cosine_similarity(
            (weight * target).flatten(1).float(), (weight * answer).flatten(1).float()
        )
        total += (1 - similarity).mean()
    return total
