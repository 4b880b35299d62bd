"""What every metric is: a function of image weights, and around it the estimate with its interval."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, ParamSpec

import numpy as np

from .arrays import BoolArray, refuse_without, to_patient_index
from .bootstrap import Estimate, Statistic, bootstrap, wilson

Data = ParamSpec("Data")


class Sample(NamedTuple):
    """N images as a metric sees them."""

    statistic: Statistic
    abnormal: BoolArray  # (N,), the classes within which images are drawn


class Metric(Generic[Data]):
    """A metric of images: called, it gives an `Estimate`; `statistic` is what its bootstrap resamples.

    Beside its own arguments every metric takes these.

    Args:
        patients: Patient of each image; None takes images as independent.
        n_resamples: Number of bootstrap resamples (1000); 0 for the point estimate alone.
        seed: Seed of the resampling (0).

    Attributes:
        needs: Classes (0 normal, 1 abnormal) without which the metric has no value. One class: it is a share of its
            images, which has Wilson's interval where images are independent.

    Raises:
        UndefinedMetricError: If the metric has no value on these data.
        ValueError: If the arguments do not fit each other.
    """

    def __init__(self, make: Callable[Data, Sample], needs: tuple[int, ...]) -> None:
        functools.update_wrapper(self, make)
        self._make = make
        self.needs = needs
        own = inspect.signature(make)
        self._options = dict(list(inspect.signature(self._estimate).parameters.items())[1:])
        self.__signature__ = own.replace(
            parameters=[*own.parameters.values(), *self._options.values()], return_annotation=Estimate
        )

    def statistic(self, *args: Data.args, **kwargs: Data.kwargs) -> Statistic:
        """The metric of these data as a function of image weights."""
        return self._sample(*args, **kwargs).statistic

    def __call__(self, *args: Any, **kwargs: Any) -> Estimate:  # noqa: ANN401 - those of `__signature__`
        """Estimate the metric with its interval."""
        given = self.__signature__.bind(*args, **kwargs).arguments
        options = {name: given.pop(name) for name in self._options if name in given}
        return self._estimate(self._sample(**given), **options)

    def _sample(self, *args: Any, **kwargs: Any) -> Sample:  # noqa: ANN401 - the metric's own
        sample = self._make(*args, **kwargs)
        refuse_without(self.needs, sample.abnormal)
        return sample

    def _estimate(
        self, sample: Sample, patients: Sequence[str | None] | None = None, *, n_resamples: int = 1000, seed: int = 0
    ) -> Estimate:
        index = to_patient_index(patients, sample.abnormal.size)
        found = bootstrap(sample.statistic, sample.abnormal, index, self.needs, n_resamples=n_resamples, seed=seed)
        if len(self.needs) != 1:
            return found
        members = np.isin(sample.abnormal, self.needs)
        found = replace(found, n_images=int(members.sum()), n_patients=np.unique(index[members]).size)
        if patients is None:
            low, high = wilson(found.value, found.n_patients)
            return replace(found, low=low, high=high)
        return found


def metric(needs: tuple[int, ...]) -> Callable[[Callable[Data, Sample]], Metric[Data]]:
    """Make a metric of the function that prepares its data; ``needs``: see `Metric`."""

    def decorate(make: Callable[Data, Sample]) -> Metric[Data]:
        return Metric(make, needs)

    return decorate
