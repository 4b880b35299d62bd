"""Which support a model compares with: images or a folder that it was given, else the data's, else the checkpoint's."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import torch
from anomalib.data import InferenceBatch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from anomalib_medical.data.images import (
    Pictures,
    pictures_in_memory,
    read_image,
    read_pictures,
    read_support,
    refuse_repeated,
)
from anomalib_medical.io import ImageAddress
from anomalib_medical.post_processing import MedicalPostProcessor

from .torch_model import D24fadModel

logger = logging.getLogger(__name__)

# Fewer than two others say nothing about what is usual among them.
_FEWEST_FOR_OUTLIERS = 3
# Chosen for few false alarms: see benchmarks/results/d24fad_support.md.
_SCORE_RATIO = 4.0
_FEATURE_RATIO = 1.8
# Images of the training that data of one task is scored against.
_OWN_SHOTS = 4


def takes_normals(post_processor: object) -> TypeGuard[MedicalPostProcessor]:
    """Whether a post-processor needs no anomalies for its threshold."""
    return isinstance(post_processor, MedicalPostProcessor) and post_processor.threshold == "specificity"


def read_explicit(model: Any) -> Pictures | None:  # noqa: ANN401 - D24fad, which imports this file
    """The support that a model was given, as images or as a folder; None without."""
    if model.explicit_support is None and model.support_dir is not None:
        salt_folder = model._trainer and model.trainer.default_root_dir  # noqa: SLF001 - None without one
        model.explicit_support = read_support(
            model.support_dir, model.support_window, model.support_shots, model.seed or 0, chooser(model), salt_folder
        )
    return model.explicit_support  # type: ignore[no-any-return]


def chooser(model: Any) -> Callable[[Iterable[torch.Tensor], int], list[int]] | None:  # noqa: ANN401 - D24fad
    """What chooses images ``(3, H, W)`` in [0, 1] that are far from one another for the teacher, if that is wanted."""

    @torch.no_grad()
    def choose(images: Iterable[torch.Tensor], count: int) -> list[int]:
        prepared = (model.prepare(image[None].to(model.device)) for image in images)
        embeddings = torch.cat([embed(model.model.teacher(image)).cpu() for image in prepared])
        return diverse_rows(embeddings, count, model.seed or 0)

    return choose if model.support_selection == "diverse" else None


@torch.no_grad()
def score_each(model: Any, images: Iterable[torch.Tensor]) -> Iterator[InferenceBatch]:  # noqa: ANN401 - D24fad
    """Raw scores and maps of images in [0, 1], one by one: sizes may differ."""
    training = model.model.training
    model.model.eval()
    for image in images:
        (checked,) = pictures_in_memory([image], "normal image").images
        yield model.model(model.prepare(checked[None].to(model.device)))
    model.model.train(training)


def warn_of_outliers(model: Any) -> None:  # noqa: ANN401 - D24fad
    """Say which support image is unlike the others, unless a checkpoint brought them: it would hide its like."""
    if model.support_embeddings is None:
        return
    for index in find_outliers(model.model, model.support_embeddings):
        logger.warning(
            "Support image %s is an outlier: it is far less like the others than these are like one another. A wrong "
            "or abnormal image in the support makes its like look normal: look at it.",
            model.support_names[index] if model.support_names else f"number {index}",
        )


class WantedSupport(Callback):
    """Gives the model the support that is wanted, and refuses to score what may not be compared with it."""

    def __init__(self) -> None:
        # The support to score with, while a training goes on: of the task that is left out, or of the only one.
        self._target: Pictures | None = None
        self._validated_episodes = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - D24fad, as below
        """Read the support of the task that is left out, or of the only one."""
        if self._target is None:
            self._read_target(trainer, pl_module)
        if pl_module.learns_one_task and self._target is not None:
            given = pl_module.explicit_support is not None
            logger.warning(
                "The data is of one task, without episodes: each image of a batch is compared with the others of it "
                "(of other patients, where it names them), and test images with %s. It learns nothing about other "
                "tasks; for those train on anomalib_medical.FewShotTasks.",
                "the support that was given" if given else f"{len(self._target.images)} of the training images",
            )
        elif self._target is None:
            logger.warning("The data has no target with a support: the model will have none until it is given one.")

    def _read_target(self, trainer: Trainer, model: Any) -> None:  # noqa: ANN401
        samples = getattr(getattr(getattr(trainer, "datamodule", None), "train_data", None), "samples", None)
        # It holds out normal images of its own for the threshold.
        model.learns_one_task = samples is not None and "task" not in samples
        self._target = _wanted(trainer, model)
        if model.learns_one_task and self._target is None:
            self._target = _draw_own(samples, trainer, model)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:  # noqa: ANN401
        """Remember whether episodes are validated."""
        del trainer, pl_module, outputs, args
        self._validated_episodes |= getattr(batch, "support", None) is not None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """After episodes, take the threshold from the target's support: that of other tasks does not hold for it."""
        if self._validated_episodes and not trainer.sanity_checking:
            self._take_target(trainer, pl_module)
        self._validated_episodes = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Encode the target's support with the weights that are about to be saved, if no validation has."""
        self._take_target(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Look at the support with the final weights."""
        del trainer
        warn_of_outliers(pl_module)
        self._target = None

    def _take_target(self, trainer: Trainer, model: Any) -> None:  # noqa: ANN401
        if trainer.state.fn == TrainerFn.FITTING and self._target is not None:
            model.take_support(self._target, warn=False)
        if model.learns_one_task:
            return
        if isinstance(model.post_processor, MedicalPostProcessor):
            if len(model.model.support) > 1 and not model.map_score.normalizes:
                model.recalibrate()
            else:
                model.post_processor.invalidate()

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Take the support that is wanted."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            _start_scoring(trainer, pl_module, [])
            return
        if self._target is None:
            self._read_target(trainer, pl_module)
        if pl_module.learns_one_task:
            # Its held-out images are scored next, with these weights.
            self._take_target(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Take the support that is wanted."""
        _start_scoring(trainer, pl_module, trainer.test_dataloaders)

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Take the support that is wanted."""
        _start_scoring(trainer, pl_module, trainer.predict_dataloaders)


def _wanted(trainer: Trainer, model: Any) -> Pictures | None:  # noqa: ANN401
    """The explicit support, or else that of the data, if there is one."""
    support = read_explicit(model)
    of_data = getattr(getattr(trainer, "datamodule", None), "target_support", None)
    return of_data(chooser(model)) if support is None and of_data is not None else support


def _draw_own(samples: Any, trainer: Trainer, model: Any) -> Pictures:  # noqa: ANN401
    """A few normal images of the training, of different patients where it knows enough of them."""
    known = samples[(samples.label_index == 0) & samples.get("known_normal", True)]
    shuffled = known.sort_values("image_path").sample(frac=1, random_state=model.seed or 0)
    alone = shuffled.drop_duplicates("patient_id") if "patient_id" in shuffled else shuffled
    pool = alone if len(alone) >= _OWN_SHOTS else shuffled
    addresses = [ImageAddress.parse(path) for path in pool.image_path]
    window = getattr(trainer.datamodule, "window", None)  # type: ignore[attr-defined]
    choose = chooser(model)
    if choose is not None and len(addresses) > _OWN_SHOTS:
        rows = choose((read_image(address, window) for address in addresses), _OWN_SHOTS)
        addresses = [addresses[row] for row in rows]
    return read_pictures(addresses[:_OWN_SHOTS], window, trainer.default_root_dir)


def _start_scoring(trainer: Trainer, model: Any, dataloaders: Any) -> None:  # noqa: ANN401
    support = _wanted(trainer, model)
    if support is not None and (support.record, support.names) != (model.support_record, model.support_names):
        model.take_support(support)
    for loader in dataloaders if isinstance(dataloaders, list) else [dataloaders]:
        dataset = getattr(loader, "dataset", None)
        refuse_repeated(model.support_record, _files_of(dataset), "images to score")
        window = getattr(dataset, "window", model.support_window)
        if model.support_dir is not None and window != model.support_window:
            msg = (
                f"The images to score are read with the window {window}, those of support_dir with "
                f"{model.support_window}: set --model.support_window to the same."
            )
            raise ValueError(msg)
    if isinstance(model.post_processor, MedicalPostProcessor) and model.post_processor.awaits_calibration:
        logger.warning(
            "There is no threshold for this support: scores are raw, without labels. Recalibrate with "
            "`anomalib-medical retarget`, or with model.recalibrate(normals) and other normal images of the same task."
        )


def _files_of(dataset: Any) -> list[Any]:  # noqa: ANN401 - ours and anomalib's have no common base
    """Where a dataset's images are, as far as it says."""
    if hasattr(dataset, "samples"):
        return list(dataset.samples.image_path)
    return list(getattr(dataset, "addresses", getattr(dataset, "image_filenames", [])))


def embed(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """One vector an image: the teacher's features averaged over the positions, each scale of length one.

    From features ``(B, C_k, H_k, W_k)`` to ``(B, C_1 + C_2 + ...)``, float32.
    """
    return torch.cat([F.normalize(scale.float().mean(dim=(-2, -1)), dim=1) for scale in features], dim=1)


def diverse_rows(embeddings: torch.Tensor, count: int, seed: int) -> list[int]:
    """Choose images far from one another, by vectors ``(N, D)``: a greedy k-center coreset from a drawn start."""
    # Not anomalib's KCenterGreedy: that takes a ratio, projects at random and shows a progress bar.
    generator = torch.Generator().manual_seed(seed)
    rows = [int(torch.randint(embeddings.shape[0], (), generator=generator))]
    nearest = torch.full((embeddings.shape[0],), float("inf"), device=embeddings.device)
    while len(rows) < count:
        nearest = torch.minimum(nearest, (embeddings - embeddings[rows[-1]]).norm(dim=1))
        rows.append(int(nearest.argmax()))
    return rows


def find_outliers(model: D24fadModel, embeddings: torch.Tensor) -> list[int]:
    """Find images of the model's support ``(K, D)``, see :func:`embed`, that are unlike the others.

    The model's scores tell organs apart that it was trained on; others the teacher's features tell apart better.
    """
    if len(model.support) < _FEWEST_FOR_OUTLIERS:
        return []
    unlike = (score_ratios(model).cpu() > _SCORE_RATIO) | (feature_ratios(embeddings).cpu() > _FEATURE_RATIO)
    return torch.nonzero(unlike).flatten().tolist()


def feature_ratios(embeddings: torch.Tensor) -> torch.Tensor:
    """Mean distance of each of K >= 3 images to the others, over the mean distance among these: ``(K,)``."""
    distances = torch.cdist(embeddings, embeddings)
    count = distances.shape[0]
    own = distances.sum(dim=1)
    among_others = (distances.sum() - 2 * own) / ((count - 1) * (count - 2))
    return own / (count - 1) / among_others.clamp(min=1e-12)


def score_ratios(model: D24fadModel) -> torch.Tensor:
    """Score of each of K >= 3 support images against the others, over these others' mean score without it: ``(K,)``."""
    scores: torch.Tensor = model.leave_one_out().pred_score  # type: ignore[assignment]  # the model scores
    ratios = []
    for index, score in enumerate(scores):
        others: torch.Tensor = model.leave_one_out(absent=index).pred_score  # type: ignore[assignment]
        mean = (others.sum() - others[index]) / (others.shape[0] - 1)
        ratios.append(score / mean.clamp(min=1e-6))
    return torch.stack(ratios)
