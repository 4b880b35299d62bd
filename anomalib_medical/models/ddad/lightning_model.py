"""Lightning module of DDAD: dual-distribution discrepancy."""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib.data import AnomalibDataModule, ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import optim
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torchvision.transforms.v2 import Resize

from anomalib_medical.models.components import (
    TOP_SHARE,
    AntialiasedPreProcessor,
    MapScore,
    MedicalModuleMixin,
    check_image_size,
    check_score,
    check_seed,
    reduce_map,
    seeded,
    sent,
)

from .checks import check_arguments, check_pool, check_refined, check_trainer, check_validation_interval, read_module_b
from .member_batches import MemberBatches, Steps, is_random, read_images, stream_seed
from .networks import REDUCTION
from .torch_model import A, DdadInferenceBatch, DdadModel, to_network_range

logger = logging.getLogger(__name__)


class Ddad(MedicalModuleMixin, AnomalibModule):
    """Dual-distribution discrepancy (MICCAI 2022, Medical Image Analysis 2023).

    Two ensembles of small autoencoders: module A learns known normal **and unlabeled** images, which nobody needs to
    have looked at, module B known normal images only. Where they disagree, the image is abnormal; where the members of
    module B disagree among themselves, nobody can tell, which is saved as uncertainty.

    Args:
        network: Kind of the networks: ``ae`` (autoencoder), ``ae_u`` (which predicts a variance too) or ``mem_ae``
            (with a memory).
        members: Networks a module; at least 2, but for the scores ``inter`` without uncertainty and ``reconstruction``.
        image_size: Side of the square that images are resized to, or height and width; multiples of 16.
        score: ``inter`` (the paper's: distance between the modules), ``intra`` (spread of module B, needs no unlabeled
            images), ``reconstruction`` (error of module B), or ``refined`` (ASR: a network trained on synthetic
            anomalies reads the maps).
        score_reduction: Image score as ``mean`` (the paper's) or ``max`` of the anomaly map, or as mean of its highest
            pixels (``top_k``), or as ``auto`` finds best on synthetic anomalies of held-out normal images.
        map_normalization: ``pixel`` divides what each pixel of the map exceeds held-out normal images' mean by their
            standard deviation; ``none`` leaves the map as it is.
        top_share: Share of the map's pixels that ``top_k`` takes.
        refinement_input: What the refinement reads: ``inter_intra``, or ``intra``, which needs no unlabeled images.
        refinement_epochs: The last epochs of a training with ``score: refined``, which train the refinement only. One
            epoch is a pass over the known normal images, in batches of 8.
        module_b: Checkpoint of a Ddad whose module B is taken over and not trained again, for a new unlabeled pool.
        all_maps: Let exported models give every map, beside anomalib's four outputs, which are all that anomalib's own
            inferencers accept.
        learning_rate: Adam's learning rate of the networks.
        seed: Fixes initial weights and the data orders of all networks; None leaves them to the global random state.
        pre_processor: Pre-processor, or True for resizing (with antialiasing, also in exported models).
        post_processor: Post-processor, or True for a threshold at 95% specificity on held-out normal images.
        evaluator: Evaluator, or True for anomalib's default metrics.
        visualizer: Visualizer, or True for anomalib's default one.

    Raises:
        ValueError: If an argument is out of its range.
    """

    score_arguments = MedicalModuleMixin.score_arguments | {"score"}
    _uncertainty_scale: torch.Tensor

    def __init__(
        self,
        network: Literal["ae", "ae_u", "mem_ae"] = "ae",
        members: int = 3,
        image_size: int | tuple[int, int] = 64,
        score: Literal["inter", "intra", "reconstruction", "refined"] = "inter",
        score_reduction: Literal["mean", "max", "top_k", "auto"] = "mean",
        map_normalization: Literal["none", "pixel"] = "none",
        top_share: float = TOP_SHARE,
        refinement_input: Literal["inter_intra", "intra"] = "inter_intra",
        refinement_epochs: int = 100,
        module_b: str | None = None,
        all_maps: bool = False,
        learning_rate: float = 5e-4,
        seed: int | None = 0,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # Rebound, because this is what the checkpoint keeps: it takes plain numbers only.
        image_size = check_image_size(image_size, REDUCTION, REDUCTION, "the networks halve them 4 times")
        check_seed(seed)
        check_score(score_reduction, map_normalization, top_share)
        check_arguments(network, members, score, refinement_input, refinement_epochs, module_b)
        super().__init__(
            pre_processor=self.configure_pre_processor(image_size) if pre_processor is True else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.score = score
        self.refinement_epochs = refinement_epochs
        self.module_b = module_b
        self.all_maps = all_maps
        self.learning_rate = learning_rate
        self.seed = seed
        self.model: DdadModel = DdadModel(
            network,
            members,
            image_size,
            score,
            refinement_input,
            seed,
            MapScore(score_reduction, map_normalization, top_share),
        )
        if module_b is not None:
            self.model.module_b.requires_grad_(requires_grad=False)
        self.register_buffer("_uncertainty_scale", torch.tensor(math.nan))
        self._data_seed = seed
        self._batches: MemberBatches | None = None
        self._reads_anew = False
        self._reload_dataloaders_every_n_epochs = 0
        self._refined_steps = 0
        self._known_module_b: str | None = None

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize with antialiasing, as the released code does, in exported models too; to 64 by 64 by default."""
        return AntialiasedPreProcessor(Resize(list(image_size or (64, 64)), antialias=True))

    @property
    def uses_unlabeled(self) -> bool:
        """Whether unlabeled images are to be in the training data."""
        return self.model.module_a is not None

    @property
    def uncertainty_scale(self) -> float | None:
        """Largest uncertainty of a pixel in the normal images that were validated last, None before."""
        scale = float(self._uncertainty_scale)
        return None if math.isnan(scale) else scale

    def setup(self, stage: str) -> None:
        """Check what training needs, and let Lightning ask this model, not the datamodule, for the loader."""
        super().setup(stage)
        if stage != "fit":
            return
        check_trainer(self.trainer, self.refinement_epochs if self.score == "refined" else None)
        datamodule: AnomalibDataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # set dynamically there
        if self.uses_unlabeled:
            check_pool(datamodule, self.score)
        if self._data_seed is None:
            self._data_seed = self.trainer.strategy.broadcast(int(torch.randint(2**62, ())))
        self._batches = None
        if isinstance(self.trainer.strategy, DDPStrategy):
            # The modules' passes over their data end in different steps, and the refinement has epochs of its own.
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)  # noqa: SLF001
        transforms = (datamodule.train_data.augmentations, getattr(self.pre_processor, "transform", None))
        self._reads_anew = any(map(is_random, transforms))
        self._reload_dataloaders_every_n_epochs = self.trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if self.score == "refined" or self._reads_anew:
            # An epoch of the refinement has another number of steps.
            self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
        # A fit sets it anew: the datamodule stays as it is.
        self.trainer.fit_loop._data_source.instance = self  # noqa: SLF001 - no other way lets a model win

    def teardown(self, stage: str) -> None:
        """Forget the images."""
        super().teardown(stage)
        if stage == "fit":
            self._batches = None
            self.trainer.reload_dataloaders_every_n_epochs = self._reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]

    def train_dataloader(self) -> Steps:
        """Read the images, again where augmentations are random; returns the steps of the current epoch."""
        if self._batches is None or self._reads_anew:
            loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
            transform, size = getattr(self.pre_processor, "transform", None), self.model.image_size
            progress = self.trainer.progress_bar_callback is not None
            seed: int = self._data_seed  # type: ignore[assignment]  # set in setup
            with seeded(stream_seed(seed, self.current_epoch)):  # for augmentations
                images = read_images(loader, transform, size, self.device, progress=progress)
            if self._batches is None:
                logger.info("Learning from %s.", images)
            self._batches = MemberBatches(
                images,
                loader.batch_size or 1,
                len(self.model.module_b.members),
                seed,
                rank=self.global_rank,
                processes=self.trainer.world_size,
            )
        if self.score == "refined":
            check_validation_interval(self.trainer, self._batches.steps_of_refinement)
        if self.refines:
            return Steps(self._batches.steps_of_refinement)
        return Steps(max(self._batches.steps[index] for index, _ in self.model.trained_modules()))

    def on_fit_start(self) -> None:
        """Take module B over, unless a checkpoint brought it."""
        super().on_fit_start()
        if self.module_b is not None and self.module_b != self._known_module_b:
            self.model.module_b.load_state_dict(read_module_b(Path(self.module_b), self.model))
            self._known_module_b = self.module_b

    def configure_optimizers(self) -> optim.Adam:
        """Adam over all that is trained: the paper's recipes of networks and refinement."""
        # On the CPU a step of the plain form takes ten times as long, but mixed precision cannot clip with the other.
        groups = self.model.parameter_groups(self.learning_rate)
        exact = self._trainer is None or self.trainer.precision == "32-true"
        return optim.Adam(groups, betas=(0.5, 0.999), fused=True if exact and self.device.type == "cpu" else None)

    def configure_gradient_clipping(
        self,
        optimizer: optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of every network by themselves: they share nothing."""
        del optimizer
        clip = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
        for network in self.model.networks():
            if gradient_clip_val:
                clip(network.parameters(), gradient_clip_val)

    @property
    def refines(self) -> bool:
        """Whether this epoch trains the refinement, with the networks frozen."""
        epochs: int = self.trainer.max_epochs  # type: ignore[assignment]  # checked in setup
        return self.score == "refined" and self.current_epoch >= epochs - self.refinement_epochs

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        """One step of every network that has not finished its pass over its data, or of the refinement.

        The loss is the sum over the networks, which share nothing; the batch has nothing to say.
        """
        del batch
        batches: MemberBatches = self._batches  # type: ignore[assignment]  # read for the loader
        self.model.let_learn(refinement=self.refines)
        if self.refines:
            self._refined_steps += 1
            loss = self.model.refinement_loss(*batches.refinement(self.current_epoch, batch_idx))
            for name in ("train_loss", "train_loss_refinement"):
                self.log(name, loss.detach(), on_epoch=True, prog_bar=name != "train_loss", batch_size=1)
            return loss
        total: list[torch.Tensor] = []
        means: list[torch.Tensor] = []
        for index, module in self.model.trained_modules():
            images = batches.draw(index, self.current_epoch, batch_idx)
            if images is not None:
                losses = module.losses(to_network_range(sent(images, self.device)))
                total.append(losses.sum())
                means.append(losses.detach().mean())
                name = "train_loss_a" if index == A else "train_loss_b"
                self.log(name, means[-1], on_epoch=True, prog_bar=True, batch_size=1)
        self.log("train_loss", torch.stack(means).sum(), on_epoch=True, batch_size=1)
        return torch.stack(total).sum()

    def on_train_end(self) -> None:
        """Say so if the refinement was never trained."""
        super().on_train_end()
        if self.score == "refined" and not self._refined_steps:
            turn = f"the refinement's turn (the last {self.refinement_epochs} epochs)"
            logger.warning("Training ended in epoch %d, before %s: no refined scores.", self.current_epoch, turn)

    def on_validation_epoch_start(self) -> None:
        """Start looking for the largest uncertainty, the scale of its pictures."""
        super().on_validation_epoch_start()
        self._uncertainty_scale.fill_(math.nan)

    def on_validation_epoch_end(self) -> None:
        """Find the largest uncertainty of all processes."""
        super().on_validation_epoch_end()
        if self._trainer is not None and self._trainer.world_size > 1:
            # nan is no number to compare with.
            own = self._uncertainty_scale.nan_to_num(nan=-math.inf)
            largest: torch.Tensor = self._trainer.strategy.reduce(own, reduce_op="max")
            self._uncertainty_scale.copy_(torch.where(largest.isfinite(), largest, math.nan))

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401 - Lightning's
        """Score a batch, in place, with its uncertainty."""
        del args, kwargs
        scored = self._score(batch, held_out=True)
        found: torch.Tensor | None = getattr(batch, "uncertainty_map", None)
        if found is not None and batch.gt_label is not None:
            found = found[~batch.gt_label.bool()]
        if found is not None and found.numel():
            self._uncertainty_scale.copy_(self._uncertainty_scale.fmax(found.max()))
        return scored

    def test_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # type: ignore[override]  # noqa: ANN401
        """Score a batch, in place, with its uncertainty."""
        del args, kwargs
        check_refined(self.score, self._refined_steps)
        return self._score(batch)

    predict_step = test_step  # type: ignore[assignment]

    def _score(self, batch: ImageBatch, *, held_out: bool = False) -> STEP_OUTPUT:
        images: torch.Tensor = batch.image  # type: ignore[assignment]  # a batch has images
        maps = self.model.maps(images)
        selected = self.model.select(maps)
        selected = self._held_out(batch, selected) if held_out else selected
        scored: STEP_OUTPUT = batch.update(**selected._asdict())
        if maps.intra is not None:
            # anomalib's own batches have no such fields, and take them all the same.
            batch.uncertainty_map = maps.intra  # type: ignore[attr-defined]
            batch.uncertainty = reduce_map(maps.intra, "mean")  # type: ignore[attr-defined]
        return scored

    def forward(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> InferenceBatch | DdadInferenceBatch:  # type: ignore[override]  # noqa: ANN401 - more outputs where asked
        """Pre-process, score and post-process images ``(B, 3, H, W)`` in [0, 1], of any size: what is exported."""
        del args, kwargs
        check_refined(self.score, self._refined_steps)
        maps = self.model.maps(batch if self.pre_processor is None else self.pre_processor(batch))
        outputs = self.model.select(maps)
        if self.post_processor is not None:
            outputs = self.post_processor(outputs)
        return DdadInferenceBatch(*outputs, *maps) if self.all_maps else outputs

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the data orders come from, and whether the refinement has learnt."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["data_seed"] = self._data_seed
        checkpoint["refined_steps"] = self._refined_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the same data orders."""
        super().on_load_checkpoint(checkpoint)
        self._data_seed = checkpoint.get("data_seed", self._data_seed)
        self._refined_steps = checkpoint.get("refined_steps", 0)
        self._known_module_b = checkpoint.get("hyper_parameters", {}).get("module_b")
