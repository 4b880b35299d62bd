"""Tables of images: one row an image, anomalib's columns and ours."""

from __future__ import annotations

import logging
from dataclasses import replace

import pandas as pd
from pandas import DataFrame

from anomalib_medical.io import Listing

logger = logging.getLogger(__name__)

UNLABELED = "unlabeled"
# Columns that start so describe the image: view, sex, manufacturer, ...
METADATA = "meta_"
_LEFT_OUT = "left_out"


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


def with_left_out(samples: DataFrame, listing: Listing, name: str) -> DataFrame:
    """Warn of what a data set's folders hold and its table does not, and keep it for `take_left_out`."""
    if sentence := listing.left_out():
        logger.warning("%s: %s", name, sentence)
    # Without the images: pandas copies attributes with every operation.
    samples.attrs[_LEFT_OUT] = replace(listing, images=[])
    return samples


def take_left_out(samples: DataFrame) -> Listing:
    """Return what a table's folders hold and it does not; the table forgets it."""
    found = samples.attrs.pop(_LEFT_OUT, None)
    return found if isinstance(found, Listing) else Listing()
