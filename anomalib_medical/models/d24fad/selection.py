"""Which support images to take, and which of them does not belong."""

from collections.abc import Sequence

import torch
from anomalib.models.components import KCenterGreedy
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from .torch_model import D24fadModel

# Fewer than two others say nothing about what is usual among them.
FEWEST_FOR_OUTLIERS = 3
# Chosen for few false alarms: see benchmarks/results/d24fad_support.md.
OUTLIER_RATIO = 3.5


def embed(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """One vector an image: the teacher's features averaged over the positions, each scale of length one.

    Args:
        features: The teacher's, each ``(B, C_k, H_k, W_k)``.

    Returns:
        ``(B, C_1 + C_2 + ...)``, float32.
    """
    return torch.cat([F.normalize(scale.float().mean(dim=(-2, -1)), dim=1) for scale in features], dim=1)


def diverse_rows(embeddings: torch.Tensor, count: int, seed: int) -> list[int]:
    """Choose images far from one another: a greedy k-center coreset, from a start that ``seed`` draws.

    Args:
        embeddings: ``(N, D)``.
        count: How many of them.
        seed: Another seed, another start.
    """
    # With a third dimension the sampler leaves out its random projection.
    sampler = KCenterGreedy(embeddings[:, :, None], sampling_ratio=1.0)
    sampler.coreset_size = count
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sampler.select_coreset_idxs()


def random_rows(available: int, count: int, seed: int) -> list[int]:
    """Draw ``count`` of ``available`` images."""
    return torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:count].tolist()


def outlier_ratios(model: D24fadModel) -> torch.Tensor:
    """How unlike the others each support image is for the model, over how unlike these are one another.

    Args:
        model: A network that holds a support of at least 3 images.

    Returns:
        ``(K,)``: score against the others, over their mean score against each other without it.
    """
    scores: torch.Tensor = model.leave_one_out().pred_score  # type: ignore[assignment]  # the model scores
    ratios = []
    for index, score in enumerate(scores):
        others: torch.Tensor = model.leave_one_out(absent=index).pred_score  # type: ignore[assignment]
        mean = (others.sum() - others[index]) / (others.shape[0] - 1)
        ratios.append(score / mean.clamp(min=1e-6))
    return torch.stack(ratios)
