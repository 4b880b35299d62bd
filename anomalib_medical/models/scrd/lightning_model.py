"""Lightning module of SCRD: scale-aware contrastive reverse distillation."""

from typing import Literal

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer

from anomalib_medical.models.components import (
    DistillationMixin,
    add_noise_patches,
    check_choice,
    check_seed,
    derived_seed,
    feature_distances,
    in_float32,
    seeded,
)
from anomalib_medical.models.components.backbones import check_pyramid

from .loss import ScrdLoss
from .torch_model import SCALES, ScrdModel


class Scrd(DistillationMixin, AnomalibModule):
    """Scale-aware contrastive reverse distillation (ICLR 2025).

    A student learns to rebuild a frozen teacher's features of normal images through a bottleneck, away from the
    teacher's features of the same images with synthetic anomalies; a small module weighs the three scales for each
    image. Where the student fails, the image is abnormal.

    Args:
        backbone: timm name of the teacher: ``wide_resnet50_2`` (the paper's), ``tf_efficientnet_lite0`` (small, with
            weights from a package) or any other with a pyramid of features; a tag such as ``.tv_in1k`` may follow.
        image_size: Side of the square that images are resized to, or height and width; multiples of twice the deepest
            stage's stride (32), at least 64.
        pre_trained: Take the teacher's ImageNet weights from timm's hub when training starts.
        teacher_weights: Local ``.safetensors`` or ``.pth`` file with the teacher's weights, instead of the hub.
        layers: Three of the backbone's feature stages, as timm counts them; None for those of strides 4, 8 and 16.
        weighting: ``scale_aware`` for learnt weights of the scales in loss and map, ``none`` for equal ones (which is
            what the released code computes).
        scale_balance: What keeps the learnt weights from collapsing onto one scale; 0 lets them.
        contrast: Push the student from the teacher's features of noisy images.
        noise: Synthetic anomalies of ``simplex`` noise (the paper's) or ``gaussian`` noise.
        noise_strength: Factor of the noise, for images in [0, 1].
        noise_size: Smallest and largest side of the noisy rectangle, as fractions of the image's side.
        noise_octaves: Octaves of the simplex noise.
        score_reduction: Image score as ``mean`` (the paper's) or ``max`` of the anomaly map.
        learning_rate: Adam's learning rate.
        seed: Fixes initial weights, noise and data order; None leaves them to the global random state. The same weights
            come out on one machine's CPU; GPUs add up in an order of their own.
        pre_processor: Pre-processor, or True for resize and ImageNet normalisation.
        post_processor: Post-processor, or True for a threshold at 95% specificity on held-out normal images.
        evaluator: Evaluator, or True for anomalib's default metrics.
        visualizer: Visualizer, or True for anomalib's default one.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        image_size: int | tuple[int, int] = 256,
        pre_trained: bool = True,
        teacher_weights: str | None = None,
        layers: tuple[int, ...] | None = None,
        weighting: Literal["scale_aware", "none"] = "scale_aware",
        scale_balance: float = 0.1,
        contrast: bool = True,
        noise: Literal["simplex", "gaussian"] = "simplex",
        noise_strength: float = 0.2,
        noise_size: tuple[float, float] = (10 / 256, 31 / 256),
        noise_octaves: int = 6,
        score_reduction: Literal["mean", "max"] = "mean",
        learning_rate: float = 1e-3,
        seed: int | None = 0,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # Rebound, because these are what the checkpoint keeps: it takes plain numbers only.
        layers, image_size = check_pyramid(backbone, layers, SCALES, image_size, halved=True)
        noise_size = (float(noise_size[0]), float(noise_size[1]))
        check_choice("weighting", weighting, ("scale_aware", "none"))
        check_choice("noise", noise, ("simplex", "gaussian"))
        check_choice("score_reduction", score_reduction, ("mean", "max"))
        if not 0 < noise_size[0] <= noise_size[1] <= 1:
            msg = f"noise_size: got {noise_size}, expected fractions of the image, 0 < smallest <= largest <= 1."
            raise ValueError(msg)
        if noise_strength <= 0 or noise_octaves < 1:
            msg = (
                f"noise_strength, noise_octaves: got {noise_strength} and {noise_octaves}, expected more than 0 and at "
                "least 1 (for a training without noise set contrast to false)."
            )
            raise ValueError(msg)
        check_seed(seed)
        super().__init__(
            pre_processor=self.teacher_pre_processor(backbone, image_size) if pre_processor is True else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.pre_trained = pre_trained
        self.teacher_weights = teacher_weights
        self.contrast = contrast
        self.noise = noise
        self.noise_strength = noise_strength
        self.noise_size = noise_size
        self.noise_octaves = noise_octaves
        self.learning_rate = learning_rate
        self.seed = seed
        with seeded(seed):
            self.model = ScrdModel(backbone, weighting, score_reduction, layers, image_size)
        self.loss = ScrdLoss(balance=scale_balance)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> torch.Tensor:
        """Loss of the contrastive distillation on normalised images ``(B, 3, H, W)``; no labels are read."""
        images: torch.Tensor = batch.image  # type: ignore[assignment]  # a batch has images
        noisy = self.add_noise(images, batch_idx) if self.contrast else None
        features = self.model(images, noisy)
        clean_distance = feature_distances(features.teacher, features.student)
        noisy_distance = None if noisy is None else feature_distances(features.noisy_teacher, features.student)
        loss: torch.Tensor = self.loss(clean_distance, noisy_distance, features.scale_weights)
        self.log("train_loss", loss.detach(), on_epoch=True, prog_bar=True, batch_size=batch.batch_size)
        if features.scale_weights is not None:
            means = features.scale_weights.detach().mean(dim=0)
            shares = {f"scale_weight_layer{index + 1}": means[index] / SCALES for index in range(SCALES)}
            self.log_dict(shares, on_step=False, on_epoch=True, batch_size=batch.batch_size)
        return loss

    @in_float32
    def add_noise(self, images: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Give every normalised image ``(B, 3, H, W)`` its own fresh patch of noise, fixed by seed, epoch and batch.

        Noise is meant for images in [0, 1]: it is scaled as the normalisation would have scaled it.
        """
        if self.seed is None:
            seed = int(torch.randint(2**62, ()))
        else:
            seed = derived_seed(self.seed, self.current_epoch, batch_idx, self.global_rank)
        return add_noise_patches(
            images,
            torch.Generator(device=images.device).manual_seed(seed),
            kind=self.noise,
            strength=self.noise_strength * self.input_scale,
            patch_size=self.noise_size,
            octaves=self.noise_octaves,
        )
