"""Which support images to take, and which of them does not belong."""

from collections.abc import Sequence

import torch
from anomalib.models.components import KCenterGreedy
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

# Fewer than two others say nothing about what is usual among them.
FEWEST_FOR_OUTLIERS = 3
# Chosen for few false alarms: see benchmarks/results/d24fad_support.md.
OUTLIER_RATIO = 2.0


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


def outlier_ratios(embeddings: torch.Tensor) -> torch.Tensor:
    """How far each image is from the others, over how far these are from one another.

    Args:
        embeddings: ``(K, D)``, K at least 3.

    Returns:
        ``(K,)``: mean distance to the others, over the mean distance among these.
    """
    distances = torch.cdist(embeddings, embeddings)
    count = distances.shape[0]
    own = distances.sum(dim=1)
    among_others = (distances.sum() - 2 * own) / ((count - 1) * (count - 2))
    return own / (count - 1) / among_others.clamp(min=1e-12)
