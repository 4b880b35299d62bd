"""The network of DDAD: two ensembles and, optionally, a network that refines their maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import reduce_map

from .discrepancy import DdadMaps, discrepancies
from .networks import Ensemble, NetworkName
from .refinement import RefinementNet

Score = Literal["inter", "intra", "reconstruction", "refined"]
SCORES: tuple[Score, ...] = ("inter", "intra", "reconstruction", "refined")
RefinementInput = Literal["inter_intra", "intra"]
# ITU-R 601-2, as Pillow's grey.
_LUMA = (0.299, 0.587, 0.114)


class DdadDataError(MedicalError, ValueError):
    """The images cannot be learned from, or scored."""


class DdadModel(nn.Module):
    """Module A (known normals and unlabeled images), module B (known normals) and what is made of their difference.

    Args:
        network: Kind of the reconstruction networks.
        members: Networks a module, K.
        image_size: Height and width, multiples of 16.
        score: The map that becomes the anomaly map and, as its mean, the score.
        refinement_input: Maps that the refinement sees.
        seed: Fixes the initial weights, of each part by itself; None leaves them to the global random state.
    """

    def __init__(
        self,
        network: NetworkName = "ae",
        members: int = 3,
        image_size: tuple[int, int] = (64, 64),
        score: Score = "inter",
        refinement_input: RefinementInput = "inter_intra",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.score: Score = score
        self.refinement_input = refinement_input
        self.module_a: Ensemble | None = None
        self.refinement: RefinementNet | None = None
        with _seeded(seed, 0):
            self.module_b = Ensemble(network, members, image_size)
        if score == "inter" or (score == "refined" and refinement_input == "inter_intra"):
            with _seeded(seed, 1):
                self.module_a = Ensemble(network, members, image_size)
        if score == "refined":
            with _seeded(seed, 2):
                self.refinement = RefinementNet(channels=1 if self.module_a is None else 2)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1], of the size that the model was built for.

        Returns:
            Anomaly maps ``(B, 1, H, W)`` and scores ``(B,)``, float32.

        Raises:
            DdadDataError: If they have another size.
        """
        return self.select(self.maps(images))

    def select(self, maps: DdadMaps) -> InferenceBatch:
        """Take the chosen map as anomaly map, and its mean as score."""
        chosen: torch.Tensor | None = getattr(maps, self.score)
        if chosen is None:
            msg = f"score: got {self.score!r}, which this model's maps do not have."
            raise ValueError(msg)
        return InferenceBatch(pred_score=reduce_map(chosen, "mean"), anomaly_map=chosen)

    def maps(self, images: torch.Tensor) -> DdadMaps:
        """Compute every map that the model's parts give, with one pass of every network.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            The maps.
        """
        if not torch.compiler.is_exporting():
            check_size(images, self.image_size)
        with torch.autocast(images.device.type, enabled=False):
            maps = self.ensemble_maps(to_network_range(to_grey(images.float())))
            if self.refinement is None:
                return maps
            return maps._replace(refined=self.refine(maps)[:, 1:])

    def ensemble_maps(self, grey: torch.Tensor) -> DdadMaps:
        """Compute the ensembles' maps of ``(B, 1, H, W)`` in [-1, 1]."""
        # They are small differences of large numbers: half precision would drown them.
        with torch.autocast(grey.device.type, enabled=False):
            return discrepancies(grey, None if self.module_a is None else self.module_a(grey), self.module_b(grey))

    def refine(self, maps: DdadMaps) -> torch.Tensor:
        """Turn the ensembles' maps into probabilities ``(B, 2, H, W)``: normal, abnormal."""
        if self.refinement is None or maps.intra is None:
            msg = "This model was built without refinement: build it with score='refined' and at least two members."
            raise ValueError(msg)
        inputs = maps.intra if maps.inter is None else torch.cat([maps.inter, maps.intra], dim=1)
        probabilities: torch.Tensor = self.refinement(inputs)
        return probabilities


def check_size(images: torch.Tensor, size: tuple[int, int]) -> None:
    """Refuse pre-processed images ``(..., H, W)`` of another height and width than the networks are built for.

    Raises:
        DdadDataError: If they have another.
    """
    if (images.shape[-2], images.shape[-1]) != size:
        msg = (
            f"Images come out of the pre-processor with {images.shape[-2]}x{images.shape[-1]} pixels (height x width), "
            f"and the model is built for {size[0]}x{size[1]}: set image_size to the former, or let the pre-processor "
            "resize."
        )
        raise DdadDataError(msg)


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Weigh the channels of ``(..., 3, H, W)`` into ``(..., 1, H, W)``."""
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)[:, None, None]
    return (images * weights).sum(dim=-3, keepdim=True)


def to_network_range(images: torch.Tensor) -> torch.Tensor:
    """Stretch [0, 1] to [-1, 1]."""
    return 2 * images - 1


@contextmanager
def _seeded(seed: int | None, part: int) -> Iterator[None]:
    """Draw initial weights from a seed, and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(int(np.random.SeedSequence([seed, part]).generate_state(1)[0]))
        yield
