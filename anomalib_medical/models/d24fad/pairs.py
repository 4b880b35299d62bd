"""Who is compared with whom in a batch: found out on the host, where what says so comes from."""

from typing import NamedTuple

import torch
from anomalib.data import ImageBatch

from anomalib_medical.models.components import sent


class Pairs(NamedTuple):
    """Which of U support images belong to which of B queries, as a table and as a list."""

    member: torch.Tensor  # (B, U), bool
    columns: torch.Tensor  # those of the first query in ascending order, then those of the second ...
    counts: tuple[int, ...]  # how many each query has (B,)
    first: torch.Tensor | None = None  # of the batch's supports, one after the other, the first of each image (U,)

    @classmethod
    def of_members(cls, member: torch.Tensor) -> "Pairs":
        """Those of a table ``(B, U)``, bool, on the host."""
        return cls(member, member.nonzero()[:, 1], tuple(member.sum(dim=1).tolist()))

    @classmethod
    def in_batch(cls, batch: ImageBatch, device: torch.device) -> "Pairs":
        """Those that came with a batch to a device, or, if it came without, its own."""
        known: Pairs | None = getattr(batch, "pairs", None)
        return cls.of(batch).to(device) if known is None else known

    @classmethod
    def of(cls, batch: ImageBatch) -> "Pairs":
        """Those of a batch: of queries with their supports, or else of each image with those of other patients.

        An image in several supports is one of the U: the same ``support_index`` ``(B, K)`` is the same image, without
        it all are different.
        """
        support: torch.Tensor | None = getattr(batch, "support", None)
        if support is None:
            return cls.of_members(_others_of(batch))
        count, shots = support.shape[:2]
        places = torch.arange(count * shots)
        index: torch.Tensor | None = getattr(batch, "support_index", None)
        index = places.view(count, shots) if index is None else index.cpu()
        images, inverse = torch.unique(index, return_inverse=True)
        first = torch.full_like(images, count * shots).scatter_reduce_(0, inverse.flatten(), places, "amin")
        member = torch.zeros(count, images.shape[0], dtype=torch.bool).scatter_(1, inverse, value=True)
        return cls.of_members(member)._replace(first=first)

    def to(self, device: torch.device) -> "Pairs":
        """The same on a device."""
        first = None if self.first is None else sent(self.first, device)
        return Pairs(sent(self.member, device), sent(self.columns, device), self.counts, first)


def _others_of(batch: ImageBatch) -> torch.Tensor:
    """Which images of a batch are of another patient than which, ``(B, B)``, bool; without patients, all others."""
    patients = getattr(batch, "patient_id", None) or range(batch.batch_size)
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    own = torch.tensor([numbers[patient] for patient in patients])
    return own[:, None] != own
