"""The anomaly maps of DDAD (section 3 of the paper): what the ensembles' reconstructions say about an image.

mu is the mean of an ensemble, B the module of known normals, A that of known normals and unlabeled images, v the mean
of the variances that module B predicts (AE-U only).
"""

from typing import NamedTuple

import torch

from .networks import Reconstruction

# Constant images let the predicted variance run to 0, and maps divided by it to infinity.
_LARGEST_LOG_VARIANCE = 20.0


class DdadMaps(NamedTuple):
    """Anomaly maps ``(B, 1, H, W)``, float32; None for what the model's parts do not give.

    Attributes:
        reconstruction: Reconstruction error of module B.
        inter: Inter-discrepancy: distance between the modules.
        intra: Intra-discrepancy: spread of module B, an uncertainty.
        refined: Probability of an anomaly by the refinement network.
    """

    reconstruction: torch.Tensor
    inter: torch.Tensor | None = None
    intra: torch.Tensor | None = None
    refined: torch.Tensor | None = None


def discrepancies(images: torch.Tensor, module_a: Reconstruction | None, module_b: Reconstruction) -> DdadMaps:
    """Compute all maps that need no refinement.

    Args:
        images: Grey images ``(B, 1, H, W)`` in [-1, 1].
        module_a: Reconstructions of module A, ``(K, B, 1, H, W)``, or None.
        module_b: Reconstructions of module B. With K = 1 there is no intra-discrepancy.

    Returns:
        The maps.
    """
    mean_b = module_b.mean.mean(dim=0)
    error = (images - mean_b) ** 2
    inter = None if module_a is None else (module_a.mean.mean(dim=0) - mean_b).abs()
    intra = module_b.mean.std(dim=0) if module_b.mean.shape[0] > 1 else None  # the unbiased one
    if module_b.log_variance is None:
        return DdadMaps(error, inter, intra)
    variance = module_b.log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE).exp().mean(dim=0)
    deviation = variance.sqrt()
    return DdadMaps(
        error / variance,
        None if inter is None else inter / deviation,
        None if intra is None else intra / deviation,
    )
