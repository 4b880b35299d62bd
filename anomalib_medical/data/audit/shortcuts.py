"""How well numbers that show no disease tell normal from abnormal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas import DataFrame, Series
from scipy.stats import mannwhitneyu
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import TargetEncoder

from anomalib_medical.data.fingerprints import Fingerprint
from anomalib_medical.data.samples import METADATA
from anomalib_medical.io import ImageAddress, image_stem
from anomalib_medical.metrics import image_auroc

FloatArray = NDArray[np.float64]

_FOLDS = 5
_FEATURES = ("file_size", "width", "height", "area", "aspect", "mean", "std", "sharpness", "border")


@dataclass(frozen=True)
class Shortcut:
    """How well one number, or one column, tells normal from abnormal test images.

    Attributes:
        name: The number or column.
        auroc: The larger of AUROC and 1 - AUROC.
        low: Lower end of its 95% interval (bootstrap over patients); nan where the data allow none.
        high: Upper end.
        direction: Whether abnormal images have the ``higher`` or ``lower`` values, or the column was ``learnt``.
        p_value: Two-sided Mann-Whitney test of the patients' means.
    """

    name: str
    auroc: float
    low: float
    high: float
    direction: Literal["higher", "lower", "learnt"]
    p_value: float


def image_features(fingerprints: Sequence[Fingerprint]) -> DataFrame:
    """Return a row of numbers an image: file size, image size, grey values, border, file type."""
    table = DataFrame(
        {
            "file_size": [record.file_size for record in fingerprints],
            "width": [record.width for record in fingerprints],
            "height": [record.height for record in fingerprints],
            "area": [record.width * record.height for record in fingerprints],
            "aspect": [record.width / record.height for record in fingerprints],
            "mean": [record.mean for record in fingerprints],
            "std": [record.std for record in fingerprints],
            "sharpness": [record.sharpness for record in fingerprints],
            "border": [record.border for record in fingerprints],
        },
    )
    return table.assign(
        file_type=[_suffix(record.path) for record in fingerprints],
        colour=["colour" if record.colour else "grey" for record in fingerprints],
    )


def find_shortcuts(samples: DataFrame, fingerprints: Sequence[Fingerprint]) -> list[Shortcut]:
    """Score the test images by everything that should not matter.

    Numbers are taken as they are. Of a column of categories, the rate of abnormal images in each category is learnt on
    four fifths of the patients and applied to the rest, so that a column of unique values scores 0.5. Columns with one
    value are left out.

    Args:
        samples: The readable images.
        fingerprints: Theirs, in the same order.

    Returns:
        The shortcuts, strongest first; none if the test set lacks a class.
    """
    rows = np.flatnonzero(samples.split == "test")
    test = samples.iloc[rows].reset_index(drop=True)
    abnormal = test.label_index.to_numpy() == 1
    if abnormal.all() or not abnormal.any():
        return []
    # Without an id an image is its own patient.
    patients = [patient or f"\0{index}" for index, patient in enumerate(test.patient_id)]
    features = image_features([fingerprints[int(row)] for row in rows])
    train = np.flatnonzero(samples.split == "train")
    if len(train):
        features["nearest_train_thumbnail"] = _nearest_distance(fingerprints, rows, train)
    numbers: dict[str, Series] = {
        name: features[name] for name in features if name in _FEATURES or name == "nearest_train_thumbnail"
    }
    categories: dict[str, Series] = {name: features[name] for name in ("file_type", "colour")}
    for name in map(str, test):
        if name.startswith(METADATA):
            _add_column(name, test[name], numbers, categories)
    found = [
        _score(name, values.to_numpy(dtype=np.float64), abnormal, patients, learnt=False)
        for name, values in numbers.items()
        if len(values.unique()) > 1
    ]
    found += [
        _score(name, _learn(values, abnormal, patients), abnormal, patients, learnt=True)
        for name, values in categories.items()
        if len(values.unique()) > 1
    ]
    return sorted(found, key=lambda shortcut: -shortcut.auroc)


def _suffix(path: str) -> str:
    file = ImageAddress.parse(path).path
    return file.name.removeprefix(image_stem(file)).lower()


def _add_column(name: str, column: Series, numbers: dict[str, Series], categories: dict[str, Series]) -> None:
    """Decide whether a column holds numbers, and treat their absence as a column of its own."""
    text = column.fillna("").astype(str).str.strip()
    values = pd.to_numeric(text, errors="coerce")
    absent = text == ""
    if values.notna().any() and values[~absent].notna().all():
        numbers[name] = values.fillna(values.median())
        categories[f"{name} absent"] = absent.map({True: "absent", False: "present"})
    else:
        categories[name] = text


def _nearest_distance(
    fingerprints: Sequence[Fingerprint],
    rows: NDArray[np.intp],
    train: NDArray[np.intp],
) -> FloatArray:
    """Return each row's distance to the nearest training image at 32x32 pixels."""

    def thumbnails(indices: NDArray[np.intp]) -> torch.Tensor:
        colours = np.stack([fingerprints[index].colours for index in indices])
        return torch.from_numpy(colours.reshape(len(colours), -1).astype(np.float32))

    known = thumbnails(train)
    distances = [torch.cdist(part, known).amin(dim=1) for part in torch.split(thumbnails(rows), 1024)]
    return torch.cat(distances).double().numpy()


def _learn(column: Series, abnormal: NDArray[np.bool_], patients: Sequence[str]) -> FloatArray:
    """Return the rate of abnormal images in each image's category, as learnt from other patients."""
    codes = column.to_numpy(dtype=str).reshape(-1, 1)
    labels = abnormal.astype(int)
    groups = np.unique(patients, return_inverse=True)[1]
    fewest = min(len(set(groups[abnormal])), len(set(groups[~abnormal])))
    scores = np.zeros(len(labels))
    if fewest < 2:
        return scores
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=0)
    for known, unknown in folds.split(codes, labels, groups):
        if len(set(labels[known])) < 2:
            continue
        encoder = TargetEncoder(target_type="binary").fit(codes[known], labels[known])
        # Relative to the rate among the known: it differs from fold to fold, against the unknown ones' labels.
        scores[unknown] = encoder.transform(codes[unknown])[:, 0] - labels[known].mean()
    return scores


def _score(
    name: str,
    values: FloatArray,
    abnormal: NDArray[np.bool_],
    patients: Sequence[str],
    *,
    learnt: bool,
) -> Shortcut:
    estimate = image_auroc(values, abnormal, patients)
    table = DataFrame({"patient": patients, "abnormal": abnormal, "value": values})
    means = table.groupby(["abnormal", "patient"]).value.mean()
    p_value = float(mannwhitneyu(means[True], means[False]).pvalue)
    # What was learnt has its direction: below 0.5 nothing was.
    if learnt or estimate.value >= 0.5:
        direction: Literal["higher", "lower", "learnt"] = "learnt" if learnt else "higher"
        return Shortcut(name, estimate.value, estimate.low, estimate.high, direction, p_value)
    return Shortcut(name, 1 - estimate.value, 1 - estimate.high, 1 - estimate.low, "lower", p_value)
