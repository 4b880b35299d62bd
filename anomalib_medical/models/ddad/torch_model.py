"""The network of DDAD: two ensembles, what their disagreement says, and, optionally, a network that refines it."""

from typing import Any, Literal, NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import MapScore, add_foreign_patches, in_float32, seeded, sent

from .networks import Ensemble, NetworkName, Reconstruction
from .refinement import RefinementNet, focal_loss

Score = Literal["inter", "intra", "reconstruction", "refined"]
SCORES: tuple[Score, ...] = ("inter", "intra", "reconstruction", "refined")
RefinementInput = Literal["inter_intra", "intra"]
A, B = 0, 1  # the modules
# ITU-R 601-2, as Pillow's grey.
_LUMA = (0.299, 0.587, 0.114)
# Constant images let the predicted variance run to 0, and maps divided by it to infinity.
_LARGEST_LOG_VARIANCE = 20.0


class DdadMaps(NamedTuple):
    """Anomaly maps ``(B, 1, H, W)``, float32; None for what the model's parts do not give."""

    reconstruction: torch.Tensor  # error of module B
    inter: torch.Tensor | None = None  # inter-discrepancy: distance between the modules
    intra: torch.Tensor | None = None  # intra-discrepancy: spread of module B, an uncertainty
    refined: torch.Tensor | None = None  # probability of an anomaly by the refinement network


class DdadInferenceBatch(NamedTuple):
    """anomalib's outputs, and the raw maps ``(B, 1, H, W)`` that they come from: `DdadMaps`, in its order."""

    pred_score: torch.Tensor | None = None
    pred_label: torch.Tensor | None = None
    anomaly_map: torch.Tensor | None = None
    pred_mask: torch.Tensor | None = None
    reconstruction_map: torch.Tensor | None = None
    inter_map: torch.Tensor | None = None
    intra_map: torch.Tensor | None = None
    refined_map: torch.Tensor | None = None


def needs_module_a(score: str, refinement_input: str) -> bool:
    """Whether a score is made with module A, which learns from unlabeled images."""
    return score == "inter" or (score == "refined" and refinement_input == "inter_intra")


class DdadModel(nn.Module):
    """Module A (known normals and unlabeled images), module B (known normals) and what is made of their difference.

    Arguments as those of `Ddad`; the seed fixes the initial weights of each part by itself.
    """

    def __init__(
        self,
        network: NetworkName = "ae",
        members: int = 3,
        image_size: tuple[int, int] = (64, 64),
        score: Score = "inter",
        refinement_input: RefinementInput = "inter_intra",
        seed: int | None = None,
        map_score: MapScore | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.score: Score = score
        self.map_score = MapScore() if map_score is None else map_score
        self.module_a: Ensemble | None = None
        self.refinement: RefinementNet | None = None
        with seeded(seed, 0):
            self.module_b = Ensemble(network, members, image_size)
        if needs_module_a(score, refinement_input):
            with seeded(seed, 1):
                self.module_a = Ensemble(network, members, image_size)
        if score == "refined":
            with seeded(seed, 2):
                self.refinement = RefinementNet(channels=1 if self.module_a is None else 2)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Anomaly maps ``(B, 1, H, W)`` and scores ``(B,)``, float32, of images ``(B, 3, H, W)`` in [0, 1]."""
        return self.select(self.maps(images))

    def select(self, maps: DdadMaps) -> InferenceBatch:
        """Take the chosen map as anomaly map, and score it."""
        scored: InferenceBatch = self.map_score(getattr(maps, self.score))
        return scored

    @in_float32
    def maps(self, images: torch.Tensor) -> DdadMaps:
        """Every map of ``(B, 3, H, W)`` in [0, 1] that the model's parts give, with one pass of every network."""
        if not torch.compiler.is_exporting():
            check_size(images, self.image_size)
        maps = self.ensemble_maps(to_network_range(to_grey(images)))
        return maps if self.refinement is None else maps._replace(refined=self.refine(maps)[:, 1:])

    @in_float32  # small differences of large numbers, which half precision would drown
    def ensemble_maps(self, grey: torch.Tensor) -> DdadMaps:
        """The ensembles' maps of ``(B, 1, H, W)`` in [-1, 1]."""
        return discrepancies(grey, None if self.module_a is None else self.module_a(grey), self.module_b(grey))

    def refine(self, maps: DdadMaps) -> torch.Tensor:
        """Turn the ensembles' maps into probabilities ``(B, 2, H, W)``: normal, abnormal."""
        if self.refinement is None or maps.intra is None:
            msg = "This model was built without refinement: build it with score='refined' and at least two members."
            raise ValueError(msg)
        inputs = maps.intra if maps.inter is None else torch.cat([maps.inter, maps.intra], dim=1)
        probabilities: torch.Tensor = self.refinement(inputs)
        return probabilities

    def trained_modules(self) -> list[tuple[int, Ensemble]]:
        """Modules that learn, with `A` or `B`; in the order of the optimizer's state in checkpoints."""
        modules = ((B, self.module_b), (A, self.module_a))
        return [(index, each) for index, each in modules if each is not None and next(each.parameters()).requires_grad]

    def networks(self) -> list[nn.Module]:
        """All networks that learn, each by itself: they share nothing."""
        members = [member for _, module in self.trained_modules() for member in module.members]
        return members if self.refinement is None else [*members, self.refinement]

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Parameters of the networks and of the refinement, which has a recipe of its own (the paper's)."""
        trained = [parameter for _, module in self.trained_modules() for parameter in module.parameters()]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": learning_rate}]
        if self.refinement is not None:
            groups.append({"params": list(self.refinement.parameters()), "lr": 1e-4, "weight_decay": 1e-4})
        return groups

    def let_learn(self, *, refinement: bool) -> None:
        """Set the modes for a step of the refinement or of the networks; what does not learn keeps its statistics."""
        for module in (self.module_a, self.module_b, self.refinement):
            if module is not None:
                frozen = not next(module.parameters()).requires_grad
                module.train((module is self.refinement) == refinement and not frozen)

    def refinement_loss(self, images: torch.Tensor, foreign: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Loss of the refinement on normal images ``(B, 1, H, W)`` in [0, 1], with patches of as many others."""
        device = next(self.parameters()).device
        images, foreign = (to_network_range(sent(each, device)) for each in (images, foreign))
        return self.loss_on_patched(*add_foreign_patches(images, foreign, generator))

    def loss_on_patched(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Loss of the refinement on ``(B, 1, H, W)`` in [-1, 1] with patches where masks of the same shape say."""
        with torch.no_grad():
            maps = self.ensemble_maps(images)
        return focal_loss(self.refine(maps), masks)


def discrepancies(images: torch.Tensor, module_a: Reconstruction | None, module_b: Reconstruction) -> DdadMaps:
    """All maps but the refined one (section 3 of the paper), of grey images ``(B, 1, H, W)`` in [-1, 1].

    Reconstructions are ``(K, B, 1, H, W)``; with K = 1 there is no intra-discrepancy.
    """
    mean_b = module_b.mean.mean(dim=0)
    error = (images - mean_b) ** 2
    inter = None if module_a is None else (module_a.mean.mean(dim=0) - mean_b).abs()
    intra = module_b.mean.std(dim=0) if module_b.mean.shape[0] > 1 else None  # the unbiased one
    if module_b.log_variance is None:
        return DdadMaps(error, inter, intra)
    variance = module_b.log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE).exp().mean(dim=0)
    inter, intra = (None if each is None else each / variance.sqrt() for each in (inter, intra))
    return DdadMaps(error / variance, inter, intra)


def check_size(images: torch.Tensor, size: tuple[int, int]) -> None:
    """Refuse pre-processed images ``(..., H, W)`` of another height and width than the networks are built for."""
    if (images.shape[-2], images.shape[-1]) != size:
        msg = (
            f"Images come out of the pre-processor with {images.shape[-2]}x{images.shape[-1]} pixels (height x width), "
            f"and the model is built for {size[0]}x{size[1]}: set image_size to the former, or let the pre-processor "
            "resize."
        )
        raise MedicalError(msg)


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Weigh the channels of ``(..., 3, H, W)`` into ``(..., 1, H, W)``."""
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)[:, None, None]
    return (images * weights).sum(dim=-3, keepdim=True)


def to_network_range(images: torch.Tensor) -> torch.Tensor:
    """Stretch [0, 1] to [-1, 1]."""
    return 2 * images - 1
