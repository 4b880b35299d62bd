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
    TOP_SHARE,
    DistillationMixin,
    MapScore,
    add_noise_patches,
    add_varied_anomalies,
    check_choice,
    check_score,
    check_seed,
    derived_seed,
    feature_distances,
    in_float32,
    seeded,
)
from anomalib_medical.models.components.backbones import check_pyramid

from .loss import ScrdLoss, changed_distances
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
        contrast: ``ratio`` (the paper's): the student sees clean images, and the ratio is that of whole images'
            distances to both teachers. ``local``: it sees the anomaly and learns to leave it out, by the ratio where
            the anomaly is. ``none``: distillation only. (True and False, of older versions: ``ratio`` and ``none``.)
        warmup_steps: Optimizer steps of plain distillation before the contrast sets in.
        noise: Synthetic anomalies: a rectangle of ``simplex`` noise (the paper's) or ``gaussian`` noise, or ``varied``
            ones (several shapes; noise, shifts of intensity, pieces of other images, blur).
        noise_strength: Factor of the noise and largest shift, for images in [0, 1].
        noise_size: Smallest and largest side of the anomaly, as fractions of the image's side.
        noise_octaves: Octaves of the simplex noise.
        score_reduction: Image score as ``mean`` (the paper's) or ``max`` of the anomaly map, or as mean of its highest
            pixels (``top_k``), or as ``auto`` finds best on synthetic anomalies of held-out normal images.
        map_normalization: ``pixel`` divides what each pixel of the map exceeds held-out normal images' mean by their
            standard deviation; ``none`` leaves the map as it is.
        top_share: Share of the map's pixels that ``top_k`` takes.
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
        contrast: Literal["ratio", "local", "none"] | bool = "ratio",
        warmup_steps: int = 0,
        noise: Literal["simplex", "gaussian", "varied"] = "simplex",
        noise_strength: float = 0.2,
        noise_size: tuple[float, float] = (10 / 256, 31 / 256),
        noise_octaves: int = 6,
        score_reduction: Literal["mean", "max", "top_k", "auto"] = "mean",
        map_normalization: Literal["none", "pixel"] = "none",
        top_share: float = TOP_SHARE,
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
        if isinstance(contrast, bool):  # a checkpoint or configuration of an older version
            contrast = "ratio" if contrast else "none"
        check_choice("contrast", contrast, ("ratio", "local", "none"))
        if warmup_steps < 0:
            msg = f"warmup_steps: got {warmup_steps}, expected 0 or more optimizer steps."
            raise ValueError(msg)
        check_choice("noise", noise, ("simplex", "gaussian", "varied"))
        check_score(score_reduction, map_normalization, top_share)
        if not 0 < noise_size[0] <= noise_size[1] <= 1:
            msg = f"noise_size: got {noise_size}, expected fractions of the image, 0 < smallest <= largest <= 1."
            raise ValueError(msg)
        if noise_strength <= 0 or noise_octaves < 1:
            msg = (
                f"noise_strength, noise_octaves: got {noise_strength} and {noise_octaves}, expected more than 0 and at "
                "least 1 (for a training without noise set contrast to none)."
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
        self.warmup_steps = warmup_steps
        self.noise = noise
        self.noise_strength = noise_strength
        self.noise_size = noise_size
        self.noise_octaves = noise_octaves
        self.learning_rate = learning_rate
        self.seed = seed
        with seeded(seed):
            map_score = MapScore(score_reduction, map_normalization, top_share)
            self.model = ScrdModel(backbone, weighting, map_score, layers, image_size)
        self.loss = ScrdLoss(balance=scale_balance)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> torch.Tensor:
        """Loss of the contrastive distillation on normalised images ``(B, 3, H, W)``; no labels are read."""
        images: torch.Tensor = batch.image  # type: ignore[assignment]  # a batch has images
        # Counted by the trainer, whose checkpoints keep it.
        contrast = self.contrast if self.global_step >= self.warmup_steps else "none"
        noisy = None if contrast == "none" else self.add_noise(images, batch_idx)
        loss, scale_weights = self.loss_of(images, noisy, local=contrast == "local")
        self.log("train_loss", loss.detach(), on_epoch=True, prog_bar=True, batch_size=batch.batch_size)
        if scale_weights is not None:
            means = scale_weights.detach().mean(dim=0)
            shares = {f"scale_weight_layer{index + 1}": means[index] / SCALES for index in range(SCALES)}
            self.log_dict(shares, on_step=False, on_epoch=True, batch_size=batch.batch_size)
        return loss

    def loss_of(
        self, images: torch.Tensor, noisy: torch.Tensor | None, *, local: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Loss, and weights of the scales ``(B, 3)`` where there are any; without noisy images that of distillation.

        With the local contrast the student sees the noisy images and is to rebuild the clean ones. All of a step that
        has weights in it: one graph for ``torch.compile``.
        """
        features = self.model(noisy, images) if local else self.model(images, noisy)  # the student sees the first
        student, scale_weights = features.student, features.scale_weights
        if local:
            clean, seen = features.noisy_teacher, features.teacher
            changed = (noisy != images).any(dim=1, keepdim=True)  # type: ignore[union-attr]  # there are noisy images
            loss: torch.Tensor = self.loss(
                changed_distances(clean, student, changed),
                changed_distances(seen, student, changed),
                scale_weights,
                whole=feature_distances(clean, student),
            )
            return loss, scale_weights
        clean_distance = feature_distances(features.teacher, student)
        noisy_distance = None if noisy is None else feature_distances(features.noisy_teacher, student)
        return self.loss(clean_distance, noisy_distance, scale_weights), scale_weights

    @in_float32
    def add_noise(self, images: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Give every normalised image ``(B, 3, H, W)`` its own fresh anomaly, fixed by seed, epoch and batch.

        Noise is meant for images in [0, 1]: it is scaled as the normalisation would have scaled it.
        """
        if self.seed is None:
            # Processes that nobody has seeded draw the same.
            seed = derived_seed(int(torch.randint(2**62, ())), self.global_rank)
        else:
            seed = derived_seed(self.seed, self.current_epoch, batch_idx, self.global_rank)
        generator = torch.Generator(device=images.device).manual_seed(seed)
        strength = self.noise_strength * self.input_scale
        if self.noise == "varied":
            return add_varied_anomalies(images, generator, strength, self.noise_size)
        return add_noise_patches(images, generator, self.noise, strength, self.noise_size, self.noise_octaves)
