"""Tables of images: one row an image, anomalib's columns and ours."""

from __future__ import annotations

import pandas as pd
from pandas import DataFrame

UNLABELED = "unlabeled"
# Columns that start so describe the image: view, sex, manufacturer, ...
METADATA = "meta_"


def without_labels(samples: DataFrame) -> DataFrame:
    """Return the rows as an unlabeled pool: whatever is known about them is gone, so that no code can read it.

    Args:
        samples: Columns as `MedicalDataset` has them.
    """
    # anomalib's batches need a number for a label: all get the same.
    hidden = samples.assign(label=UNLABELED, label_index=0, mask_path="", known_normal=False)
    return hidden.assign(boxes="") if "boxes" in hidden else hidden


def concat_samples(known: DataFrame, unlabeled: DataFrame) -> DataFrame:
    """Put known normals and the unlabeled pool into one table, with the known normals' attributes."""
    known = known.assign(known_normal=True)
    joined = pd.concat([known, unlabeled[[column for column in unlabeled if column in known]]], ignore_index=True)
    joined.attrs = dict(known.attrs)
    return joined
