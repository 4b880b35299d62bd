"""Lightning module of DDAD: dual-distribution discrepancy."""

import logging
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from anomalib.data import AnomalibDataModule, ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import optim
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torchvision.transforms.v2 import Resize

from anomalib_medical.io import counted
from anomalib_medical.models.components import (
    AntialiasedPreProcessor,
    MedicalModuleMixin,
    check_choice,
    check_image_size,
    check_seed,
    reduce_map,
)

from .checks import DdadError, check_epochs, check_members, check_trainer, check_validation_interval, read_module_b
from .member_batches import MemberBatches, Turn, Turns, is_random, read_images, stream_seed
from .networks import NETWORKS, REDUCTION
from .refinement import add_foreign_patches, focal_loss
from .torch_model import SCORES, DdadModel, to_network_range

logger = logging.getLogger(__name__)

_REFINEMENT_LEARNING_RATE = 1e-4
_REFINEMENT_WEIGHT_DECAY = 1e-4


class DdadInferenceBatch(NamedTuple):
    """anomalib's outputs, and the raw maps ``(B, 1, H, W)`` that they come from."""

    pred_score: torch.Tensor | None = None
    pred_label: torch.Tensor | None = None
    anomaly_map: torch.Tensor | None = None
    pred_mask: torch.Tensor | None = None
    reconstruction_map: torch.Tensor | None = None
    inter_map: torch.Tensor | None = None
    intra_map: torch.Tensor | None = None
    refined_map: torch.Tensor | None = None


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

    score_arguments = frozenset({"image_size", "score"})
    _uncertainty_scale: torch.Tensor

    def __init__(
        self,
        network: Literal["ae", "ae_u", "mem_ae"] = "ae",
        members: int = 3,
        image_size: int | tuple[int, int] = 64,
        score: Literal["inter", "intra", "reconstruction", "refined"] = "inter",
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
        check_choice("network", network, NETWORKS)
        check_choice("score", score, SCORES)
        check_choice("refinement_input", refinement_input, ("inter_intra", "intra"))
        check_seed(seed)
        check_members(members, score)
        if refinement_epochs < 1:
            msg = f"refinement_epochs: got {refinement_epochs}, expected at least 1."
            raise ValueError(msg)
        super().__init__(
            pre_processor=self.configure_pre_processor(image_size) if pre_processor is True else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.members = members
        self.score = score
        self.refinement_epochs = refinement_epochs
        self.module_b = module_b
        self.all_maps = all_maps
        self.learning_rate = learning_rate
        self.seed = seed
        self.model: DdadModel = DdadModel(network, members, image_size, score, refinement_input, seed)
        if module_b is not None:
            if self.model.module_a is None:
                msg = (
                    f"module_b: got a checkpoint, and score: {score!r} trains nothing but module B. Use score inter or "
                    "refined (with refinement_input inter_intra)."
                )
                raise ValueError(msg)
            self.model.module_b.requires_grad_(requires_grad=False)
        self.register_buffer("_uncertainty_scale", torch.tensor(math.nan))
        self._largest_uncertainty: torch.Tensor | None = None
        self._data_seed = seed
        self._batches: MemberBatches | None = None
        self._read_in_epoch = -1
        self._reload_dataloaders_every_n_epochs = 0
        self._refined_steps = 0
        self._known_module_b: str | None = None

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize with antialiasing, as the released code does, in exported models too.

        Args:
            image_size: Height and width, 64 by 64 by default.
        """
        return AntialiasedPreProcessor(Resize(list(image_size or (64, 64)), antialias=True))

    @property
    def uses_unlabeled(self) -> bool:
        """Whether unlabeled images are to be in the training data."""
        return self.model.module_a is not None

    @property
    def uncertainty_scale(self) -> float | None:
        """Largest uncertainty of a pixel in normal validation images, None before the first validation."""
        scale = float(self._uncertainty_scale)
        return None if math.isnan(scale) else scale

    def setup(self, stage: str) -> None:
        """Check what training needs, and see to it that images are read once.

        Args:
            stage: Lightning's stage.

        Raises:
            DdadError: If this trainer or this data cannot train this model.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if self._data_seed is None:
            self._data_seed = int(torch.randint(2**62, ()))
        datamodule = check_trainer(self.trainer)
        if self.score == "refined":
            check_epochs(self.trainer, self.refinement_epochs)
            # An epoch of the refinement has another number of steps.
            self._reload_dataloaders_every_n_epochs = self.trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
            self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]  # set dynamically there
        if self.uses_unlabeled and not len(getattr(datamodule, "unlabeled_data", ())):
            other = "score intra" if self.score == "inter" else "refinement_input intra"
            msg = (
                f"score: {self.score} compares known normal with unlabeled images, and {datamodule.name} has no "
                "unlabeled ones. With --data anomalib_medical.MedicalFolder put images that nobody has looked at into "
                "<root>/unlabeled, or name their folder with --data.unlabeled_dir; without any, "
                f"--model.{other} learns from the known normal ones alone."
            )
            raise DdadError(msg)
        self._batches = None
        self._give_turns(datamodule)

    def _give_turns(self, datamodule: AnomalibDataModule) -> None:
        """Let the datamodule's loader give turns for as long as this model is trained.

        Only so does every network get its own batches whatever the datamodule, and no image is read twice.
        """
        trainer = self.trainer
        vars(datamodule).pop("train_dataloader", None)  # of a training that an error ended

        def train_dataloader() -> Any:  # noqa: ANN401 - Lightning takes every iterable
            # Not after an error or an interruption, which let no teardown happen.
            is_training = trainer.state.fn == TrainerFn.FITTING and trainer.state.status == TrainerStatus.RUNNING
            if is_training and datamodule.trainer is trainer and trainer.lightning_module is self:
                return Turns(self._steps(datamodule))
            return type(datamodule).train_dataloader(datamodule)

        datamodule.train_dataloader = train_dataloader  # type: ignore[method-assign]

    def _steps(self, datamodule: AnomalibDataModule) -> int:
        """Steps of the current epoch."""
        batches = self._batches or self._read(datamodule)
        if self.refines:
            return batches.steps_of_refinement
        steps_a = batches.steps_a if self.uses_unlabeled else 0
        return max(steps_a, 0 if self.module_b else batches.steps_b)

    def _read(self, datamodule: AnomalibDataModule) -> MemberBatches:
        """Read all training images."""
        loader = type(datamodule).train_dataloader(datamodule)
        seed: int = self._data_seed  # type: ignore[assignment]  # set in setup
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(seed, self.current_epoch))  # for augmentations
            images = read_images(
                loader,
                getattr(self.pre_processor, "transform", None),
                self.model.image_size,
                progress=self.trainer.progress_bar_callback is not None,
            )
        if self._batches is None:
            known = int(images.known_normal.sum())
            unlabeled = len(images.known_normal) - known
            logger.info("Learning from %d known normal and %s.", known, counted(unlabeled, "unlabeled image"))
        self._batches = MemberBatches(images, loader.batch_size or 1, self.members, seed)
        self._read_in_epoch = self.current_epoch
        if self.score == "refined":
            check_validation_interval(self.trainer, self._batches.steps_of_refinement)
        return self._batches

    def teardown(self, stage: str) -> None:
        """Give the datamodule its own loader back, and forget the images.

        Args:
            stage: Lightning's stage.
        """
        super().teardown(stage)
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and datamodule is not None:
            vars(datamodule).pop("train_dataloader", None)
            self._batches = None
            if self.score == "refined":
                self.trainer.reload_dataloaders_every_n_epochs = self._reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Take module B over, unless a checkpoint brought it."""
        super().on_fit_start()
        if self.module_b is not None and self.module_b != self._known_module_b:
            self.model.module_b.load_state_dict(read_module_b(Path(self.module_b), self.model))
            self._known_module_b = self.module_b

    def configure_optimizers(self) -> optim.Adam:
        """Adam over all that is trained: the paper's recipes of networks and refinement."""
        networks = [self.model.module_b, *([] if self.model.module_a is None else [self.model.module_a])]
        trained = [parameter for part in networks for parameter in part.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": self.learning_rate}]
        if self.model.refinement is not None:
            groups.append(
                {
                    "params": list(self.model.refinement.parameters()),
                    "lr": _REFINEMENT_LEARNING_RATE,
                    "weight_decay": _REFINEMENT_WEIGHT_DECAY,
                },
            )
        # On the CPU a step of the plain form takes ten times as long, but mixed precision cannot clip with the other.
        exact = self._trainer is None or self.trainer.precision == "32-true"
        return optim.Adam(groups, betas=(0.5, 0.999), fused=True if exact and self.device.type == "cpu" else None)

    def configure_gradient_clipping(
        self,
        optimizer: optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of every network by themselves: they share nothing.

        Args:
            optimizer: Not used.
            gradient_clip_val: Largest norm or value.
            gradient_clip_algorithm: ``norm`` or ``value``.
        """
        del optimizer
        if not gradient_clip_val:
            return
        modules = [module for module in (self.model.module_a, self.model.module_b) if module is not None]
        networks = [network for module in modules for network in module.members]
        for network in networks if self.model.refinement is None else [*networks, self.model.refinement]:
            if gradient_clip_algorithm == "value":
                clip_grad_value_(network.parameters(), gradient_clip_val)
            else:
                clip_grad_norm_(network.parameters(), gradient_clip_val)

    @property
    def refines(self) -> bool:
        """Whether this epoch trains the refinement, with the networks frozen."""
        if self.score != "refined":
            return False
        epochs: int = self.trainer.max_epochs  # type: ignore[assignment]  # checked in setup
        return self.current_epoch >= epochs - self.refinement_epochs

    def training_step(self, batch: Turn, batch_idx: int) -> torch.Tensor:
        """One step of every network that has not finished its pass over its data, or of the refinement.

        Args:
            batch: A turn; the images are drawn here.
            batch_idx: Index of the step in its epoch.

        Returns:
            The loss: the sum over the networks, which share nothing.
        """
        del batch
        self._set_modes()
        if self.refines:
            return self._refinement_step(batch_idx)
        batches = self._current_batches()
        total: list[torch.Tensor] = []
        means: list[torch.Tensor] = []
        for name, module, draw in (
            ("a", self.model.module_a, batches.module_a),
            ("b", None if self.module_b else self.model.module_b, batches.module_b),
        ):
            images = None if module is None else draw(self.current_epoch, batch_idx)
            if module is None or images is None:
                continue
            losses = module.losses(to_network_range(images.to(self.device)))
            means.append(losses.detach().mean())
            self.log(f"train_loss_{name}", means[-1], on_epoch=True, prog_bar=True, batch_size=1)
            total.append(losses.sum())
        self.log("train_loss", torch.stack(means).sum(), on_epoch=True, batch_size=1)
        return torch.stack(total).sum()

    def _set_modes(self) -> None:
        """Let learn what is to learn now, whatever happened to the modes before; the rest keeps its statistics."""
        self.model.train(not self.refines)
        if self.module_b is not None:
            self.model.module_b.eval()
        if self.model.refinement is not None:
            self.model.refinement.train(self.refines)

    def _refinement_step(self, batch_idx: int) -> torch.Tensor:
        refinement = self.model.refinement
        if refinement is None:
            msg = "This model has no refinement."
            raise RuntimeError(msg)
        images, foreign, generator = self._current_batches().refinement(self.current_epoch, batch_idx)
        patched = add_foreign_patches(
            to_network_range(images.to(self.device)), to_network_range(foreign.to(self.device)), generator
        )
        self._refined_steps += 1
        with torch.no_grad():
            maps = self.model.ensemble_maps(patched.images)
        loss = focal_loss(self.model.refine(maps), patched.masks)
        for name in ("train_loss", "train_loss_refinement"):
            self.log(name, loss.detach(), on_epoch=True, prog_bar=name != "train_loss", batch_size=images.shape[0])
        return loss

    def _current_batches(self) -> MemberBatches:
        """Images that were read once or, where augmentations are random, in this epoch."""
        datamodule: AnomalibDataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
        transforms = (datamodule.train_data.augmentations, getattr(self.pre_processor, "transform", None))
        anew = self._read_in_epoch != self.current_epoch and is_random(*transforms)
        return self._read(datamodule) if anew or self._batches is None else self._batches

    def on_train_end(self) -> None:
        """Say so if the refinement was never trained."""
        super().on_train_end()
        if self.score == "refined" and not self._refined_steps:
            logger.warning(
                "Training ended in epoch %d, before the refinement's turn (the last %d epochs): there are no refined "
                "scores.",
                self.current_epoch,
                self.refinement_epochs,
            )

    def on_test_start(self) -> None:
        """Check that there is something to score with."""
        super().on_test_start()
        self._check_refinement()

    def on_predict_start(self) -> None:
        """Check that there is something to score with."""
        super().on_predict_start()
        self._check_refinement()

    def _check_refinement(self) -> None:
        if self.score == "refined" and not self._refined_steps:
            msg = (
                "The refinement has not been trained: the training ended before its turn. Resume it (anomalib fit "
                "--ckpt_path ...), or train with score inter."
            )
            raise DdadError(msg)

    def on_validation_epoch_start(self) -> None:
        """Start looking for the largest uncertainty."""
        super().on_validation_epoch_start()
        self._largest_uncertainty = None

    def on_validation_epoch_end(self) -> None:
        """Keep the largest uncertainty as the scale of its pictures."""
        super().on_validation_epoch_end()
        if self._largest_uncertainty is not None:
            self._uncertainty_scale.copy_(self._largest_uncertainty)
            self._largest_uncertainty = None

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401 - Lightning's
        """Score a batch, in place, with its uncertainty."""
        del args, kwargs
        scored = self._score(batch)
        found: torch.Tensor | None = getattr(batch, "uncertainty_map", None)
        if found is not None and batch.gt_label is not None:
            found = found[~batch.gt_label.bool()]
        if found is not None and found.numel():
            largest = found.max()
            known = self._largest_uncertainty
            self._largest_uncertainty = largest if known is None else torch.maximum(known, largest)
        return scored

    def test_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # type: ignore[override]  # noqa: ANN401
        """Score a batch, in place, with its uncertainty."""
        del args, kwargs
        return self._score(batch)

    def predict_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # type: ignore[override]  # noqa: ANN401
        """Score a batch, in place, with its uncertainty."""
        del args, kwargs
        return self._score(batch)

    def _score(self, batch: ImageBatch) -> STEP_OUTPUT:
        images: torch.Tensor = batch.image  # type: ignore[assignment]  # a batch has images
        maps = self.model.maps(images)
        scored: STEP_OUTPUT = batch.update(**self.model.select(maps)._asdict())
        if maps.intra is not None:
            # anomalib's own batches have no such fields, and take them all the same.
            batch.uncertainty_map = maps.intra  # type: ignore[attr-defined]
            batch.uncertainty = reduce_map(maps.intra, "mean")  # type: ignore[attr-defined]
        return scored

    def forward(  # type: ignore[override]  # with more outputs where asked
        self,
        batch: torch.Tensor,
        *args: Any,  # noqa: ANN401 - anomalib's
        **kwargs: Any,  # noqa: ANN401 - anomalib's
    ) -> InferenceBatch | DdadInferenceBatch:
        """Pre-process, score and post-process images: what is exported.

        Args:
            batch: Images ``(B, 3, H, W)`` in [0, 1], of any size.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            anomalib's four outputs, and with ``all_maps`` the raw maps too.
        """
        del args, kwargs
        self._check_refinement()
        images = batch if self.pre_processor is None else self.pre_processor(batch)
        maps = self.model.maps(images)
        outputs = self.model.select(maps)
        if self.post_processor is not None:
            outputs = self.post_processor(outputs)
        if not self.all_maps:
            return outputs
        every = {f"{name}_map": value for name, value in maps._asdict().items()}
        return DdadInferenceBatch(**outputs._asdict(), **every)

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
