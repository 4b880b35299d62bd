"""How well numbers that show no disease tell normal from abnormal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas import DataFrame, Series
from pandas.api.types import is_numeric_dtype
from scipy.stats import mannwhitneyu
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import TargetEncoder

from anomalib_medical.data.fingerprints import Fingerprint
from anomalib_medical.data.samples import METADATA
from anomalib_medical.io import ImageAddress, image_stem
from anomalib_medical.metrics import Estimate, image_auroc

FloatArray = NDArray[np.float64]

_FOLDS = 5
_EXAMPLES = 3
_NUMBERS = ("file_size", "width", "height", "mean", "std", "sharpness", "border")


@dataclass(frozen=True)
class Shortcut:
    """How well one number, or one column, tells normal from abnormal test images."""

    name: str  # of the number or column
    estimate: Estimate  # the larger of AUROC and 1 - AUROC
    direction: Literal["higher", "lower", "learnt"]  # which values abnormal images have; of categories: as learnt
    p_value: float  # two-sided Mann-Whitney test of the patients' means
    # Rows of test images of different patients with the lowest and with the highest values; of categories, with those
    # that mostly normal images have, and mostly abnormal ones.
    lowest: tuple[int, ...] = ()
    highest: tuple[int, ...] = ()

    @property
    def auroc(self) -> float:
        """The larger of AUROC and 1 - AUROC."""
        return self.estimate.value

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.name} alone tells normal from abnormal test images with AUROC {self.estimate}."


def image_features(fingerprints: Sequence[Fingerprint]) -> DataFrame:
    """Return a row of numbers an image: file size, image size, grey values, border, file type."""
    table = DataFrame([[getattr(record, name) for name in _NUMBERS] for record in fingerprints], columns=list(_NUMBERS))
    return table.assign(
        area=table.width * table.height,
        aspect=table.width / table.height,
        file_type=[_suffix(record.path) for record in fingerprints],
        colour=["colour" if record.colour else "grey" for record in fingerprints],
    )


def find_shortcuts(samples: DataFrame, fingerprints: Sequence[Fingerprint]) -> list[Shortcut]:
    """Score the test images by everything that should not matter, strongest first; nothing if they lack a class.

    Numbers are taken as they are. Of a column of categories, the rate of abnormal images in each category is learnt on
    four fifths of the patients and applied to the rest, so that a column of unique values scores 0.5. Columns with one
    value are left out.
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
    for name in map(str, test):
        if name.startswith(METADATA):
            features = features.assign(**_columns_of(name, test[name]))
    found = [
        _score(str(name), values, abnormal, patients, rows)
        for name, values in features.items()
        if len(values.unique()) > 1
    ]
    return sorted(found, key=lambda shortcut: -shortcut.auroc)


def _suffix(path: str) -> str:
    file = ImageAddress.parse(path).path
    return file.name.removeprefix(image_stem(file)).lower()


def _columns_of(name: str, column: Series) -> dict[str, Series]:
    """A column of numbers, if it holds numbers, and one of their absence; or one of categories."""
    text = column.fillna("").astype(str).str.strip()
    values = pd.to_numeric(text, errors="coerce")
    absent = text == ""
    if values.notna().any() and values[~absent].notna().all():
        return {name: values.fillna(values.median()), f"{name} absent": absent.map({True: "absent", False: "present"})}
    return {name: text}


def _nearest_distance(
    fingerprints: Sequence[Fingerprint], rows: NDArray[np.intp], train: NDArray[np.intp]
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
    name: str, column: Series, abnormal: NDArray[np.bool_], patients: Sequence[str], rows: NDArray[np.intp]
) -> Shortcut:
    learnt = not is_numeric_dtype(column)
    values = _learn(column, abnormal, patients) if learnt else column.to_numpy(dtype=np.float64)
    found = image_auroc(values, abnormal, patients)
    table = DataFrame({"patient": patients, "abnormal": abnormal, "value": values})
    means = table.groupby(["abnormal", "patient"]).value.mean()
    p_value = float(mannwhitneyu(means[True], means[False]).pvalue)
    order = np.argsort(values, kind="stable")
    lowest, highest = (tuple(rows[_first_of_patients(each, patients)].tolist()) for each in (order, order[::-1]))
    # What was learnt has its direction: below 0.5 nothing was.
    if learnt or found.value >= 0.5:
        return Shortcut(name, found, "learnt" if learnt else "higher", p_value, lowest, highest)
    turned = replace(found, value=1 - found.value, low=1 - found.high, high=1 - found.low)
    return Shortcut(name, turned, "lower", p_value, lowest, highest)


def _first_of_patients(order: NDArray[np.intp], patients: Sequence[str]) -> NDArray[np.intp]:
    """The first images of different patients, of at most half of these: the other half is the other end's."""
    first = Series([patients[index] for index in order]).drop_duplicates().index
    return order[first[: min(_EXAMPLES, len(first) // 2)]]
