"""One table of all the images that a datamodule has."""

from __future__ import annotations

import pandas as pd
from anomalib.data import AnomalibDataModule
from pandas import DataFrame

from anomalib_medical.data.samples import METADATA, UNLABELED

SPLITS = ("train", UNLABELED, "val", "test")
# What the audit reads, and what a datamodule without it gets.
_DEFAULTS = {"label": "", "label_index": 0, "patient_id": "", "mask_path": ""}


def collect_splits(datamodule: AnomalibDataModule) -> DataFrame:
    """List the images of a datamodule after its ``setup``.

    Args:
        datamodule: anomalib's or ours.

    Returns:
        Columns image_path, split (train, unlabeled, val or test), label, label_index, patient_id ("" where the
        datamodule knows none), mask_path and the meta_* that there are.
    """
    tables = []
    for split in SPLITS:
        data = getattr(datamodule, f"{split}_data", None)
        if data is None or not len(data.samples):
            continue
        samples: DataFrame = data.samples
        metadata = [column for column in map(str, samples) if column.startswith(METADATA)]
        table = samples.reindex(columns=["image_path", *_DEFAULTS, *metadata]).fillna(_DEFAULTS).assign(split=split)
        # A pool's labels are never read, whatever the datamodule says.
        tables.append(table.assign(label=UNLABELED, label_index=0) if split == UNLABELED else table)
    if not tables:
        return DataFrame(columns=["image_path", *_DEFAULTS, "split"])
    joined: DataFrame = pd.concat(tables, ignore_index=True)
    joined["image_path"] = joined.image_path.astype(str)
    joined["patient_id"] = joined.patient_id.fillna("").astype(str)
    return joined
