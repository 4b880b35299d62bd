"""A metric within each group of images: views, sites, sexes, classes of disease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import BoolArray, UndefinedMetricError, to_labels
from .estimate import Estimate


@dataclass(frozen=True)
class GroupResult:
    """A metric in one group.

    Attributes:
        group: The group's name.
        n_normal: Its normal images.
        n_abnormal: Its abnormal images.
        estimate: The metric, None where the group does not allow it.
        reason: Why there is none, else "".
    """

    group: str
    n_normal: int
    n_abnormal: int
    estimate: Estimate | None
    reason: str = ""


def by_group(
    metric: Callable[[BoolArray], Estimate], labels: Sequence[int], groups: Sequence[str]
) -> list[GroupResult]:
    """Compute a metric in each group.

    Groups are many and small: the more one looks at, the more of them differ by chance.

    Args:
        metric: From the images that belong to the group, a mask ``(N,)``, to the metric.
        labels: ``(N,)``, 1 for abnormal.
        groups: ``(N,)``, the group of each image; "" is a group like the others, of images without the information.

    Returns:
        The groups by name; one that has only one class may have no estimate.
    """
    return [_one(metric, members, labels, name) for name, members in group_members(groups).items()]


def by_class(
    metric: Callable[[BoolArray], Estimate], labels: Sequence[int], classes: Sequence[str]
) -> list[GroupResult]:
    """Compute a metric for each class of abnormal images against all normal ones.

    Args:
        metric: From a mask ``(N,)`` to the metric.
        labels: ``(N,)``, 1 for abnormal.
        classes: ``(N,)``, the class of each image; those of normal images are not looked at.

    Returns:
        The classes of abnormal images by name.
    """
    return [_one(metric, members, labels, name) for name, members in class_members(labels, classes).items()]


def group_members(groups: Sequence[str]) -> dict[str, BoolArray]:
    """Return the images of each group, masks ``(N,)``, by name."""
    names = np.asarray([str(group) for group in groups])
    return {str(name): names == name for name in np.unique(names)}


def class_members(labels: Sequence[int], classes: Sequence[str]) -> dict[str, BoolArray]:
    """Return the images of each abnormal class and all normal ones, masks ``(N,)``, by name."""
    abnormal, names = to_labels(labels), np.asarray([str(name) for name in classes])
    return {str(name): (names == name) & abnormal | ~abnormal for name in np.unique(names[abnormal])}


def _one(metric: Callable[[BoolArray], Estimate], members: BoolArray, labels: Sequence[int], name: str) -> GroupResult:
    abnormal = to_labels(labels)
    counts = int((members & ~abnormal).sum()), int((members & abnormal).sum())
    if not counts[0] or not counts[1]:
        return GroupResult(name, *counts, None, f"no {'abnormal' if counts[0] else 'normal'} images")
    try:
        return GroupResult(name, *counts, metric(members))
    except UndefinedMetricError as error:
        return GroupResult(name, *counts, None, str(error))
