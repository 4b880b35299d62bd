"""Lightning module of D2-4FAD: dual distillation for few-shot anomaly detection."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import optim
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by
from torchvision.transforms.v2 import Resize

from anomalib_medical.data.images import read_image
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.io import ImageAddress, Window, counted
from anomalib_medical.models.components import (
    DistillationMixin,
    check_choice,
    check_image_size,
    check_seed,
    feature_distances,
)
from anomalib_medical.post_processing import MedicalPostProcessor

from .checks import addresses_of, check_post_processor, read_normals, refuse_other_window, refuse_support_images
from .loss import D24fadLoss
from .selection import diverse_rows, embed, find_outliers, random_rows
from .support import Support, SupportImage, images_of, list_support, record_of, unique_support
from .torch_model import D24fadError, D24fadModel, EncodedSupport, EpisodeFeatures

logger = logging.getLogger(__name__)

_RECALIBRATE = (
    "Recalibrate with `anomalib-medical retarget`, or with model.recalibrate(normals) and held-out normal images of "
    "the same task"
)


class D24fad(DistillationMixin, AnomalibModule):
    """Dual distillation for few-shot anomaly detection (D2-4FAD, ICLR 2026).

    Learns on several normal-only tasks (organs, scanners) how to compare an image with a few normal images of its own
    task, the support. A new task then needs no training: its support is encoded once and is part of the model, of
    checkpoints and of exported graphs. Train it on `FewShotTasks`.

    Args:
        backbone: timm name of the teacher: ``wide_resnet50_2`` (the paper's), ``resnet18``, ``resnet34`` or
            ``resnet50``, with or without a tag such as ``.tv_in1k``.
        image_size: Side of the square that images are resized to, or height and width; multiples of 32, at least 64.
        pre_trained: Take the teacher's ImageNet weights from timm's hub when training starts.
        teacher_weights: Local ``.safetensors`` or ``.pth`` file with the teacher's weights, instead of the hub.
        normalize: Normalise images with ImageNet statistics, which the teacher's weights were made for; false leaves
            them in [0, 1], as the released code does.
        weighting: ``learned`` weighs the support images for each query (learn-to-weight), ``none`` takes their mean.
        ssd_weight: Weight of the student self-distillation (query against support) in the loss.
        tsd_weight: Weight of the teacher-student distillation in the loss.
        stop_gradient: Keep gradients of the self-distillation away from the support's features.
        score_reduction: Image score as ``max`` (the paper's) or ``mean`` of the anomaly map.
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

    Raises:
        ValueError: If an argument is out of its range.
    """

    score_arguments = frozenset({"image_size", "score_reduction", "normalize"})

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        image_size: int | tuple[int, int] = 128,
        pre_trained: bool = True,
        teacher_weights: str | None = None,
        normalize: bool = True,
        weighting: Literal["learned", "none"] = "learned",
        ssd_weight: float = 1.0,
        tsd_weight: float = 0.1,
        stop_gradient: bool = False,
        score_reduction: Literal["mean", "max"] = "max",
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
        image_size = check_image_size(image_size, 32, 64, "the network halves them 5 times")
        check_choice("weighting", weighting, ("learned", "none"))
        check_choice("score_reduction", score_reduction, ("mean", "max"))
        check_choice("support_selection", support_selection, ("random", "diverse"))
        check_seed(seed)
        if min(ssd_weight, tsd_weight) < 0 or ssd_weight + tsd_weight == 0:
            msg = f"ssd_weight, tsd_weight: got {ssd_weight} and {tsd_weight}, expected 0 or more, not both 0."
            raise ValueError(msg)
        if support_shots is not None and (support_shots < 1 or support_dir is None):
            msg = (
                f"support_shots: got {support_shots} with support_dir {support_dir}, expected at least 1, and a folder."
            )
            raise ValueError(msg)
        check_post_processor(post_processor)
        window = Window.of(support_window)
        super().__init__(
            pre_processor=_pre_processor(image_size, normalize) if pre_processor is True else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        # A checkpoint holds its support: where that came from, or another one's place, is no part of it.
        for name in ("support_dir", "support_shots", "support_window"):
            self.hparams.pop(name, None)
            self._hparams_initial.pop(name, None)  # type: ignore[operator,union-attr]  # what loggers write
        self.pre_trained = pre_trained
        self.teacher_weights = teacher_weights
        self.stop_gradient = stop_gradient
        self.learning_rate = learning_rate
        self.support_dir = support_dir
        self.support_shots = support_shots
        self.support_selection = support_selection
        self.support_window = window
        self.seed = seed
        #: What is known of the support images that the model holds.
        self.support_images: list[SupportImage] = []
        # The support that wins over the checkpoint's and the data's, once it is read.
        self._explicit: Support | None = None
        # The support of the task that is left out, while the others train.
        self._target: Support | None = None
        # One vector for each image of the support that was encoded last, none for a checkpoint's.
        self._embeddings: torch.Tensor | None = None
        self._validated_episodes = False
        # A fork of the random state: building a model to load a checkpoint into it leaves the user's alone.
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            self.model: D24fadModel = D24fadModel(backbone, weighting, score_reduction)
        self.loss = D24fadLoss(ssd_weight, tsd_weight)

    def configure_optimizers(self) -> optim.Adam:
        """Adam over student and learn-to-weight: all that is not frozen (the paper's recipe)."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return optim.Adam(trained, lr=self.learning_rate, betas=(0.5, 0.999))

    # Training

    def on_fit_start(self) -> None:
        """Load the teacher, then read the support of the task that is left out."""
        super().on_fit_start()
        self._target = self._wanted_support()
        if self._target is None:
            logger.warning("The data has no target with a support: the model will have none until it is given one.")

    def training_step(self, batch: ImageBatch, batch_idx: int) -> torch.Tensor:
        """One step of the dual distillation.

        Args:
            batch: Normalised queries ``(B, 3, H, W)`` with their supports ``(B, K, 3, H, W)`` in [0, 1].
            batch_idx: Not used.

        Returns:
            The loss.
        """
        del batch_idx
        loss = self._loss(self._episode(batch))
        self.log("train_loss", loss.detach(), on_epoch=True, prog_bar=True, batch_size=batch.batch_size)
        return loss

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401 - Lightning's
        """Score a batch, in place: queries of episodes against their own supports, all others against the model's."""
        learning_without_target = self.trainer.state.fn == TrainerFn.FITTING and len(self.model.support) == 0
        if getattr(batch, "support", None) is None and not learning_without_target:
            return super().validation_step(batch, *args, **kwargs)
        self._validated_episodes = True
        features = self._episode(batch)
        self.log("val_loss", self._loss(features), batch_size=batch.batch_size)
        predictions = self.model.compare(features.student, features.support)
        updated: STEP_OUTPUT = batch.update(**predictions._asdict())
        return updated

    def on_validation_epoch_end(self) -> None:
        """After episodes, take the threshold from the target's support: that of other tasks does not hold for it."""
        super().on_validation_epoch_end()
        if self._validated_episodes and not self.trainer.sanity_checking:
            self._take_target()
        self._validated_episodes = False

    def on_train_epoch_end(self) -> None:
        """Encode the target's support with the weights that are about to be saved, if no validation has."""
        super().on_train_epoch_end()
        self._take_target()

    def on_fit_end(self) -> None:
        """Look at the support with the final weights."""
        super().on_fit_end()
        self._warn_of_outliers()

    def _episode(self, batch: ImageBatch) -> EpisodeFeatures:
        support: torch.Tensor | None = getattr(batch, "support", None)
        if support is None:
            msg = (
                "D24fad learns from episodes, and this batch has no support images. Use --data "
                "anomalib_medical.FewShotTasks: a folder with a folder for each of several tasks."
            )
            raise D24fadError(msg)
        images, member = unique_support(support, getattr(batch, "support_index", None))
        queries: torch.Tensor = batch.image  # type: ignore[assignment]  # a batch has images
        return self.model.episode(queries, self._prepare(images), member, stop_gradient=self.stop_gradient)

    def _loss(self, features: EpisodeFeatures) -> torch.Tensor:
        loss: torch.Tensor = self.loss(
            feature_distances(features.student, features.support),
            feature_distances(features.student, features.teacher),
        )
        return loss

    def _take_target(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING and self._target is not None:
            self._take(self._target)
        if not isinstance(self.post_processor, MedicalPostProcessor):
            return
        if len(self.model.support) > 1:
            self.recalibrate()
        else:
            self.post_processor.invalidate()

    # Support

    def set_support(self, images: torch.Tensor | Sequence[torch.Tensor] | str | Path) -> None:
        """Compare with other normal images from now on, also after a checkpoint is loaded.

        They are encoded at once. The threshold of the former support is dropped: raw scores and no labels come out
        until :meth:`recalibrate`.

        Args:
            images: ``(K, 3, H, W)`` or K images ``(3, H_k, W_k)``, in [0, 1]; or a folder, read as ``support_dir``.

        Raises:
            D24fadError: If there are none, or they are no such images.
            ImageReadError: If a file cannot be read.
        """
        if isinstance(images, str | Path):
            self._explicit, self.support_dir = None, str(images)
        else:
            self._explicit = Support.of_tensors(images)
        self._take_explicit()

    def recalibrate(
        self,
        normals: AnomalibDataModule | str | Path | torch.Tensor | Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Set threshold and score range for the support that the model holds.

        Args:
            normals: Held-out normal images of the same task: a folder, a datamodule (its validation set's normal
                images), or images in [0, 1] ``(N, 3, H, W)``. None for what is left without any: each support image
                against the others. As these are one fewer, scores are a little high, and so is the threshold.

        Raises:
            D24fadError: If there are too few images, support images are among them, or there is nothing to calibrate.
        """
        post_processor = self.post_processor
        if not isinstance(post_processor, MedicalPostProcessor) or post_processor.threshold != "specificity":
            msg = (
                f"The post-processor is {type(post_processor).__name__}: only a MedicalPostProcessor with threshold: "
                "specificity takes its threshold from normal images."
            )
            raise D24fadError(msg)
        count = len(self.model.support)
        if count < (2 if normals is None else 1):
            msg = (
                f"The support holds {counted(count, 'image')}, expected at least 2 to leave one out: give held-out "
                "normal images."
                if count
                else "The model has no support set to calibrate for: give it one first, with set_support."
            )
            raise D24fadError(msg)
        if normals is None:
            left_out = self.model.leave_one_out()
            maps: torch.Tensor = left_out.anomaly_map  # type: ignore[assignment]  # the model gives maps
            scores: torch.Tensor = left_out.pred_score  # type: ignore[assignment]  # and scores
            values = [scores, maps.amin(dim=(1, 2, 3)), maps.amax(dim=(1, 2, 3))]
        else:
            values = self._score_normals(read_normals(normals, self.support_window, self.support_images))
        post_processor.calibrate(*values)

    def support_record(self, hasher: PatientHasher) -> dict[str, Any]:
        """Say which support images the model holds: count, sha256, and salted hashes of their names."""
        self.hash_support_names(hasher)
        return record_of(self.support_images)

    def hash_support_names(self, hasher: PatientHasher) -> None:
        """Hash the names of support images that have not been hashed yet."""
        self.support_images = [image.hashed(hasher) for image in self.support_images]

    @torch.no_grad()
    def _score_normals(self, images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Raw scores, and the smallest and largest value of each map: three tensors ``(N,)``."""
        training = self.model.training
        self.model.eval()
        rows = []
        for image in images:
            result = self.model(self._prepare(image[None].to(self.device)))
            rows.append(torch.stack([result.pred_score[0], result.anomaly_map.min(), result.anomaly_map.max()]))
        self.model.train(training)
        return list(torch.stack(rows).unbind(dim=1))

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and normalise images in [0, 1] as the engine does with queries."""
        transform = getattr(self.pre_processor, "transform", None)
        prepared: torch.Tensor = images if transform is None else transform(images)
        return prepared

    # What is kept must serve graphs and further training too; Lightning tests and predicts in inference mode.
    @torch.inference_mode(mode=False)
    def _take(self, support: Support) -> None:
        """Encode a support into the model; if it is another one than before, forget what belonged to that."""
        prepared = [self._prepare(image[None].to(self.device)) for image in support.pixels]
        if len({image.shape for image in prepared}) > 1:
            sizes = ", ".join(sorted({f"{image.shape[-2]}x{image.shape[-1]}" for image in prepared}))
            msg = (
                f"The support images have different sizes ({sizes}), and the model has no pre-processor to resize them."
            )
            raise D24fadError(msg)
        images = torch.cat(prepared)
        encoded = self.model.encode_support(images)
        self._embeddings = embed(self.model.teacher(images))
        changed = not _same(encoded, list(self.model.support))
        self.model.support.fill(encoded)
        self.support_images = support.images
        if changed and isinstance(self.post_processor, MedicalPostProcessor):
            self.post_processor.invalidate()

    def _take_explicit(self) -> None:
        support = self._read_explicit()
        if support is not None:
            self._take(support)
            self._warn_of_outliers()

    def _wanted_support(self) -> Support | None:
        """Return the explicit support, or else that of the data, if there is one."""
        explicit = self._read_explicit()
        if explicit is not None:
            return explicit
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        data = getattr(datamodule, "support_data", None)
        if data is None:
            return None
        if self.support_selection == "diverse":
            pool = [ImageAddress.parse(path) for path in datamodule.support_pool.image_path]
            if len(pool) > len(data):
                logger.info("Choosing %d diverse support images of %d.", len(data), len(pool))
                datamodule.choose_support(self._diverse(pool, len(data), datamodule.window))
        addresses = [ImageAddress.parse(path) for path in data.samples.image_path]
        return Support.read(addresses, datamodule.window)

    def _read_explicit(self) -> Support | None:
        if self._explicit is None and self.support_dir is not None:
            addresses = list_support(self.support_dir, self.support_shots)
            shots = self.support_shots or len(addresses)
            if self.support_selection == "diverse" and shots < len(addresses):
                rows = self._diverse(addresses, shots, self.support_window)
            else:
                rows = random_rows(len(addresses), shots, self.seed or 0)
            self._explicit = Support.read([addresses[row] for row in sorted(rows)], self.support_window)
        return self._explicit

    @torch.no_grad()
    def _diverse(self, pool: Sequence[ImageAddress], shots: int, window: Window | None) -> list[int]:
        embeddings = []
        for address in pool:
            image = self._prepare(read_image(address, window)[None].to(self.device))
            embeddings.append(embed(self.model.teacher(image)).cpu())
        return diverse_rows(torch.cat(embeddings), shots, self.seed or 0)

    def _warn_of_outliers(self) -> None:
        """Say which support image is unlike the others: what is abnormal in the support hides its like."""
        if self._embeddings is None:
            return
        for index in find_outliers(self.model, self._embeddings):
            logger.warning(
                "Support image %s is an outlier: it is far less like the others than these are like one another. A "
                "wrong or abnormal image in the support makes its like look normal: look at it.",
                self.support_images[index].name or f"number {index}",
            )

    # Testing and predicting

    def on_validation_start(self) -> None:
        """Take the support that is wanted."""
        super().on_validation_start()
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._start_scoring([])

    def on_test_start(self) -> None:
        """Take the support that is wanted."""
        super().on_test_start()
        self._start_scoring(self.trainer.test_dataloaders)

    def on_predict_start(self) -> None:
        """Take the support that is wanted."""
        super().on_predict_start()
        self._start_scoring(self.trainer.predict_dataloaders)

    def _start_scoring(self, dataloaders: object) -> None:
        support = self._wanted_support()
        if support is not None and support.images != self.support_images:
            self._take(support)
            self._warn_of_outliers()
        loaders = dataloaders if isinstance(dataloaders, list) else [dataloaders]
        datasets = [loader.dataset for loader in loaders if hasattr(loader, "dataset")]
        for dataset in datasets:
            refuse_support_images(self.support_images, addresses_of(dataset), "images to score")
            if self.support_dir is not None:
                refuse_other_window(dataset, self.support_window)
        if isinstance(self.post_processor, MedicalPostProcessor) and self.post_processor.awaits_calibration:
            logger.warning("There is no threshold for this support: scores are raw, without labels. %s.", _RECALIBRATE)

    # Checkpoints

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's
        """Load weights and support; an explicit support is encoded anew with the weights."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._take_explicit()
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the record of the support, with hashed names."""
        super().on_save_checkpoint(checkpoint)
        if self._trainer is not None:
            self.hash_support_names(PatientHasher(self.trainer.default_root_dir))
        checkpoint["support_record"] = record_of(self.support_images)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the checkpoint's support, of however many images."""
        self.model.support.fit_to(checkpoint["state_dict"], "model.support.")
        super().on_load_checkpoint(checkpoint)
        if isinstance(self.post_processor, MedicalPostProcessor):
            # Lightning keeps the threshold a second time, as a callback's state, and would put it back after an
            # explicit support has dropped it.
            checkpoint.get("callbacks", {}).pop(self.post_processor.state_key, None)
        self.support_images = images_of(checkpoint.get("support_record", record_of([])))

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export for torch, without the support's pixels and file names."""
        held = self._explicit, self._target, self.support_images, self.support_dir
        self._explicit = self._target = self.support_dir = None
        self.support_images = images_of(record_of(self.support_images))
        try:
            return super().to_torch(export_root, model_file_name)
        finally:
            self._explicit, self._target, self.support_images, self.support_dir = held


def _pre_processor(image_size: tuple[int, int], normalize: bool) -> PreProcessor:
    if normalize:
        return DistillationMixin.configure_pre_processor(image_size)
    return PreProcessor(Resize(image_size, antialias=False))


def _same(first: Sequence[EncodedSupport], second: Sequence[EncodedSupport]) -> bool:
    """Whether two supports are the same up to rounding."""
    return all(
        a.features.shape == b.features.shape
        and bool((F.cosine_similarity(a.features.flatten(1), b.features.flatten(1)) > 1 - 1e-4).all())
        for a, b in zip(first, second, strict=True)
    )
