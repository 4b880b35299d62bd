"""Training data of the ensembles: every image is read once, and every network draws its own batches from them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from anomalib.data import ImageBatch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.v2 import Transform
from tqdm.auto import tqdm

from anomalib_medical.io import agree, counted

from .torch_model import DdadDataError, check_size, to_grey

logger = logging.getLogger(__name__)

_DETERMINISTIC = (v2.Resize, v2.CenterCrop, v2.Normalize, v2.Grayscale, v2.ToDtype, v2.ToImage, v2.Pad)
_MEMORY_LIMIT = 4 * 2**30
_REFINEMENT = 1_000_000  # in a member's place


@dataclass
class Turn:
    """What the trainer carries through a step; the images stay with the model, which draws its batches itself.

    The two fields are what anomalib's pre-processor looks for in every batch: there is nothing left for it to do.
    """

    image: None = None
    gt_mask: None = None

    def to(self, *args: object, **kwargs: object) -> Self:
        """Stay: there is nothing to move to a device."""
        del args, kwargs
        return self


class Turns:
    """A loader of as many turns as an epoch has steps.

    Which images a step sees follows from seed, epoch and step alone (and random augmentations, where there are such),
    so that there is no state to save, and a resumed run goes on exactly where it stopped.

    Args:
        steps: Steps an epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Turn]:
        """Yield the turns."""
        return (Turn() for _ in range(self.steps))

    def state_dict(self) -> dict[str, Any]:
        """Nothing; having it tells the trainer that an epoch can be resumed in its middle."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


class Images(NamedTuple):
    """All training images.

    Attributes:
        grey: ``(N, 1, H, W)`` in [0, 1].
        known_normal: ``(N,)`` bool.
    """

    grey: torch.Tensor
    known_normal: torch.Tensor


def read_images(
    loader: DataLoader[Any], transform: Transform | None, size: tuple[int, int], *, progress: bool = False
) -> Images:
    """Read every image of a training loader, in the order of its data set.

    Args:
        loader: Gives data set, batch size, number of workers and collation; its order and last batch do not matter.
        transform: The model's pre-processing.
        size: Height and width that must come out of it.
        progress: Show a bar.

    Returns:
        The images; in memory, or beyond 4 GiB in a temporary file without a name.

    Raises:
        DdadDataError: If an image has another size, or values that are not finite.
    """
    data: Any = loader.dataset
    ordered: DataLoader[ImageBatch] = DataLoader(
        data, batch_size=loader.batch_size or 1, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )
    grey = _allocate(len(data), size)
    known_normal = torch.ones(len(data), dtype=torch.bool)
    start = 0
    for batch in tqdm(ordered, desc="Reading images", unit="batch", disable=not progress, leave=False):
        images: torch.Tensor = batch.image
        images = images if transform is None else transform(images)
        check_size(images, size)
        finite = images.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            paths = [path for path, good in zip(batch.image_path or [], finite, strict=False) if not good]
            which = f"{counted(len(paths), 'training image')} {agree(len(paths), 'has', 'have')}"
            msg = f"{which} values that are not numbers (NaN or infinite): {paths[:3]}."
            raise DdadDataError(msg)
        stop = start + images.shape[0]
        grey[start:stop] = to_grey(images)
        known = getattr(batch, "known_normal", None)
        if known is not None:
            known_normal[start:stop] = known
        start = stop
    return Images(grey, known_normal)


def is_random(*transforms: object) -> bool:
    """Whether an image could come out different when it is transformed again."""
    return not all(map(_is_deterministic, transforms))


def _is_deterministic(transform: object) -> bool:
    if isinstance(transform, v2.Compose):
        return all(_is_deterministic(part) for part in transform.transforms)
    return transform is None or type(transform) in _DETERMINISTIC


def _allocate(count: int, size: tuple[int, int]) -> torch.Tensor:
    shape = (count, 1, *size)
    if 4 * count * size[0] * size[1] <= _MEMORY_LIMIT:
        return torch.empty(shape)
    # The file has no name from the start, and is gone with the process: it holds images of patients.
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


@dataclass
class MemberBatches:
    """Draws the batches of every network, each in an order of its own.

    One epoch is one pass of module A over all images and one of module B over the known normals; incomplete batches are
    dropped. Everything follows from seed, epoch and step.

    Attributes:
        images: All training images.
        batch_size: Images a batch; less where there are fewer images.
        members: Networks a module.
        seed: Source of all orders.
        refinement_batch_size: Images a batch of the refinement.
    """

    images: Images
    batch_size: int
    members: int
    seed: int
    refinement_batch_size: int = 8
    _orders: dict[tuple[int, int], tuple[int, torch.Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check that batches can be made."""
        self._pools = (torch.arange(len(self.images.known_normal)), self.images.known_normal.nonzero().flatten())
        for pool, name in zip(self._pools, ("training", "known normal"), strict=True):
            if min(self.batch_size, len(pool)) < 2:
                msg = (
                    f"Batches of {counted(min(self.batch_size, len(pool)), 'image')}: batch normalisation needs 2 or "
                    f"more. There {agree(len(pool), 'is', 'are')} {counted(len(pool), f'{name} image')}, and "
                    f"train_batch_size is {self.batch_size}."
                )
                raise DdadDataError(msg)

    @property
    def steps_a(self) -> int:
        """Steps of module A an epoch."""
        return self._steps(0, self.batch_size)

    @property
    def steps_b(self) -> int:
        """Steps of module B an epoch."""
        return self._steps(1, self.batch_size)

    @property
    def steps_of_refinement(self) -> int:
        """Steps of the refinement an epoch."""
        return self._steps(1, self.refinement_batch_size)

    def module_a(self, epoch: int, step: int) -> torch.Tensor | None:
        """Batches of module A's members, ``(K, B, 1, H, W)``; None where its pass over the data is over."""
        return self._module(0, epoch, step)

    def module_b(self, epoch: int, step: int) -> torch.Tensor | None:
        """Batches of module B's members, ``(K, B, 1, H, W)``; None where its pass over the data is over."""
        return self._module(1, epoch, step)

    def refinement(self, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """Known normals for the refinement.

        Returns:
            Images ``(B, 1, H, W)``, as many others to take patches from, and the step's source of randomness.
        """
        chosen = self._rows(1, _REFINEMENT, epoch, step, self.refinement_batch_size)
        generator = torch.Generator().manual_seed(stream_seed(self.seed, 1, _REFINEMENT, epoch, step))
        # Another image: at least one further on in the list of normals.
        pool = self._pools[1]
        position = torch.searchsorted(pool, chosen)
        shift = 1 + torch.randint(len(pool) - 1, (len(chosen),), generator=generator)
        foreign = pool[(position + shift) % len(pool)]
        return self.images.grey[chosen], self.images.grey[foreign], generator

    def rows(self, module: int, member: int, epoch: int, step: int) -> torch.Tensor:
        """Rows of the images in one member's batch; module A is 0, B is 1."""
        return self._rows(module, member, epoch, step, self.batch_size)

    def _module(self, module: int, epoch: int, step: int) -> torch.Tensor | None:
        if step >= self._steps(module, self.batch_size):
            return None
        rows = [self.rows(module, member, epoch, step) for member in range(self.members)]
        batches: torch.Tensor = self.images.grey[torch.stack(rows)]
        return batches

    def _steps(self, module: int, batch_size: int) -> int:
        return max(1, len(self._pools[module]) // batch_size)

    def _rows(self, module: int, member: int, epoch: int, step: int, batch_size: int) -> torch.Tensor:
        pool = self._pools[module]
        known = self._orders.get((module, member))
        if known is None or known[0] != epoch:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, module, member, epoch))
            known = (epoch, pool[torch.randperm(len(pool), generator=generator)])
            self._orders[module, member] = known
        return known[1][step * batch_size : (step + 1) * batch_size]


def stream_seed(*parts: int) -> int:
    """Seed of one of many streams of random numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
