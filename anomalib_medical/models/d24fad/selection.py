"""Which support images to take, and which of them does not belong."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from .torch_model import D24fadModel

# Fewer than two others say nothing about what is usual among them.
_FEWEST_FOR_OUTLIERS = 3
# Chosen for few false alarms: see benchmarks/results/d24fad_support.md.
_SCORE_RATIO = 4.0
_FEATURE_RATIO = 1.8


def embed(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """One vector an image: the teacher's features averaged over the positions, each scale of length one.

    Args:
        features: The teacher's, each ``(B, C_k, H_k, W_k)``.

    Returns:
        ``(B, C_1 + C_2 + ...)``, float32.
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
    """Find support images that are unlike the others, by the model's scores or by the teacher's features.

    The model tells organs apart that it was trained on; others the teacher's features tell apart better.

    Args:
        model: A network that holds the support.
        embeddings: One vector a support image ``(K, D)``, see :func:`embed`.
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
