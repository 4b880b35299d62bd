"""How the models of a dataset stand to each other: their order, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anomalib_medical.benchmark.report.compare import Contrast, contrasts
from anomalib_medical.benchmark.report.evaluate import Value
from anomalib_medical.benchmark.report.results import Dataset, Model


@dataclass(frozen=True)
class Standing:
    """The models of a dataset by AUROC.

    Attributes:
        dataset: The dataset, with at least one model.
        values: Model -> metric -> value.
        order: The highest AUROC first, models without one last.
        references: Title of a column -> the model that the others are compared with there; none without any AUROC.
        contrasts: Title -> model -> its comparison.
    """

    dataset: Dataset
    values: Mapping[str, Mapping[str, Value]]
    order: Sequence[Model]
    references: Mapping[str, Model]
    contrasts: Mapping[str, Mapping[str, Contrast]]

    @property
    def best(self) -> Model | None:
        """The model with the highest AUROC; None if no model has one."""
        return self.references.get("best")

    def auroc(self, model: Model) -> Value:
        """Image AUROC of a model."""
        return self.values[model.name]["image_auroc"]

    def contrast_with_best(self, model: Model) -> Contrast | None:
        """Comparison with the best model; None for that one itself."""
        return next(iter(self.contrasts.values()), {}).get(model.name)

    @property
    def tied(self) -> list[Model]:
        """The models that DeLong's test does not tell from the best."""
        found = []
        for model in self.order:
            contrast = self.contrast_with_best(model)
            if contrast is not None and not np.isnan(contrast.adjusted) and not contrast.significant:
                found.append(model)
        return found


def make_standing(dataset: Dataset, values: Mapping[str, Mapping[str, Value]]) -> Standing:
    """Order the models of a dataset and compare them with the best and with PatchCore."""

    def auroc(model: Model) -> float:
        estimate = values[model.name]["image_auroc"].estimate
        return estimate.value if estimate else -1.0

    order = sorted(dataset.models, key=lambda model: -auroc(model))
    ranked = [model for model in order if values[model.name]["image_auroc"].estimate]
    references = {"best": ranked[0]} if ranked else {}
    patchcore = next((model for model in ranked[1:] if _is_patchcore(model)), None)
    if patchcore is not None:
        references["PatchCore"] = patchcore
    found = {title: contrasts(dataset.models, reference) for title, reference in references.items()}
    return Standing(dataset, values, order, references, found)


def _is_patchcore(model: Model) -> bool:
    return str(model.first.info.spec.get("class_path", "")).rpartition(".")[2].lower() == "patchcore"
