"""Training data of the ensembles: every image is read once, and every network draws its own batches from them."""

import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import ImageBatch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.v2 import Transform
from tqdm.auto import tqdm

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted
from anomalib_medical.models.components import sent

from .torch_model import B, check_size, to_grey

_DETERMINISTIC = (v2.Resize, v2.CenterCrop, v2.Normalize, v2.Grayscale, v2.ToDtype, v2.ToImage, v2.Pad)
_MEMORY_LIMIT = 4 * 2**30
_REFINEMENT = 1_000_000  # in a member's place
_REFINEMENT_BATCH = 8


class Images(NamedTuple):
    """All training images: grey ones ``(N, 1, H, W)`` in [0, 1], and which are known to be normal ``(N,)``, bool."""

    grey: torch.Tensor
    known_normal: torch.Tensor

    def __str__(self) -> str:
        """Say how many there are, and how much memory they take."""
        normal = int(self.known_normal.sum())
        unlabeled = counted(len(self.known_normal) - normal, "unlabeled image")
        return f"{normal} known normal and {unlabeled} ({self.grey.nbytes / 1e6:.0f} MB)"


def read_images(
    loader: DataLoader[Any],
    transform: Transform | None,
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    progress: bool = False,
) -> Images:
    """Read every image of a training loader, in the order of its data set, and pre-process it to a size.

    They lie on a GPU if they take a quarter of its free memory at most, else in the host's, or beyond 4 GiB in a
    temporary file without a name.
    """
    data: Any = loader.dataset
    ordered: DataLoader[ImageBatch] = DataLoader(
        data, batch_size=loader.batch_size or 1, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )
    grey = _allocate((len(data), 1, *size))
    known_normal = torch.ones(len(data), dtype=torch.bool)
    start = 0
    for batch in tqdm(ordered, desc="Reading images", unit="batch", disable=None if progress else True, leave=False):
        images: torch.Tensor = batch.image
        images = images if transform is None else transform(images)
        check_size(images, size)
        finite = images.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            paths = [path for path, good in zip(batch.image_path or [], finite, strict=False) if not good]
            which = f"{counted(len(paths), 'training image')} {agree(len(paths), 'has', 'have')}"
            msg = f"{which} values that are not numbers (NaN or infinite): {paths[:3]}."
            raise MedicalError(msg)
        stop = start + len(images)
        grey[start:stop] = to_grey(images)
        known = getattr(batch, "known_normal", None)
        if known is not None:
            known_normal[start:stop] = known
        start = stop
    device = torch.device(device)
    fits = device.type == "cuda" and 4 * grey.nbytes <= torch.cuda.mem_get_info(device)[0]
    return Images(grey.to(device) if fits else grey, known_normal)


def _allocate(shape: tuple[int, ...]) -> torch.Tensor:
    if 4 * np.prod(shape) <= _MEMORY_LIMIT:
        return torch.empty(shape)
    # The file has no name from the start, and is gone with the process: it holds images of patients.
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def is_random(transform: object) -> bool:
    """Whether an image could come out different when it is transformed again."""
    if isinstance(transform, v2.Compose):
        return any(map(is_random, transform.transforms))
    return transform is not None and type(transform) not in _DETERMINISTIC


class MemberBatches:
    """Draws the batches of every network, each in an order of its own.

    One epoch is one pass of module A over all images and one of module B over the known normals; incomplete batches are
    dropped, but where there are fewer images than a batch. Everything follows from seed, epoch and step.

    Of several processes, each takes its turn in the same orders: a step is a batch of each.
    """

    def __init__(
        self, images: Images, batch_size: int, members: int, seed: int, *, rank: int = 0, processes: int = 1
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.members = members
        self.seed = seed
        self._rank, self._processes = rank, processes
        pools = (torch.arange(len(images.known_normal)), images.known_normal.nonzero().flatten())
        self._pools = tuple(pool.to(images.grey.device) for pool in pools)
        for pool, name in zip(self._pools, ("training", "known normal"), strict=True):
            if self._size(pool, batch_size) < 2:
                devices = f" for {processes} devices" if processes > 1 else ""
                msg = (
                    f"Batches of {counted(self._size(pool, batch_size), 'image')}: batch normalisation needs 2 or "
                    f"more. There {agree(len(pool), 'is', 'are')} {counted(len(pool), f'{name} image')}{devices}, and "
                    f"train_batch_size is {batch_size}."
                )
                raise MedicalError(msg)
        #: Steps an epoch of module A and of module B.
        self.steps = tuple(self._count(pool, batch_size) for pool in self._pools)
        self.steps_of_refinement = self._count(self._pools[B], _REFINEMENT_BATCH)
        self._orders: dict[tuple[int, int], tuple[int, torch.Tensor]] = {}  # of the epoch drawn from last

    def _size(self, pool: torch.Tensor, batch_size: int) -> int:
        """Images in a batch of one process."""
        return min(batch_size, len(pool) // self._processes)

    def _count(self, pool: torch.Tensor, batch_size: int) -> int:
        """Steps an epoch."""
        return len(pool) // (self._size(pool, batch_size) * self._processes)

    def draw(self, module: int, epoch: int, step: int) -> torch.Tensor | None:
        """Batches of a module's networks ``(K, B, 1, H, W)``; None where its pass over the data is over."""
        if step >= self.steps[module]:
            return None
        rows = [self.rows(module, member, epoch, step) for member in range(self.members)]
        batches: torch.Tensor = self.images.grey[torch.stack(rows)]
        return batches

    def refinement(self, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """Known normals ``(B, 1, H, W)``, as many others to take patches from, and the step's source of randomness."""
        chosen = self.rows(B, _REFINEMENT, epoch, step, _REFINEMENT_BATCH)
        turn = step * self._processes + self._rank
        pool = self._pools[B]
        generator = torch.Generator(device=pool.device).manual_seed(stream_seed(self.seed, B, _REFINEMENT, epoch, turn))
        # Another image: at least one further on in the list of normals.
        shift = 1 + torch.randint(len(pool) - 1, (len(chosen),), generator=generator, device=pool.device)
        foreign = pool[(torch.searchsorted(pool, chosen) + shift) % len(pool)]
        return self.images.grey[chosen], self.images.grey[foreign], generator

    def rows(self, module: int, member: int, epoch: int, step: int, batch_size: int | None = None) -> torch.Tensor:
        """Rows of the images in one member's batch."""
        pool = self._pools[module]
        size, turn = self._size(pool, batch_size or self.batch_size), step * self._processes + self._rank
        known = self._orders.get((module, member))
        if known is None or known[0] != epoch:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, module, member, epoch))
            # In the host's order, wherever the images are; on their device, where every step takes its part.
            known = (epoch, pool[sent(torch.randperm(len(pool), generator=generator), pool.device)])
            self._orders[module, member] = known
        return known[1][turn * size : (turn + 1) * size]


class Steps:
    """What Lightning goes through in an epoch: as many steps as it has, whose images the model draws itself.

    As these follow from the step's number, there is no state to save, and a resumed run goes on exactly where it was.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.count

    def __iter__(self) -> Iterator[SimpleNamespace]:
        """Yield what anomalib's pre-processor looks for in a batch: the images have passed it already."""
        return (SimpleNamespace(image=None, gt_mask=None) for _ in range(self.count))

    def state_dict(self) -> dict[str, Any]:
        """Nothing; having it tells Lightning that an epoch can be resumed in its middle."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


def stream_seed(*parts: int) -> int:
    """Seed of one of many streams of random numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
