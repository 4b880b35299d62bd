"""RSNA Pneumonia Detection Challenge (2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.rsna import RSNA_SOURCE, has_rsna, make_rsna_dataset


class RSNA(PublishedDataModule):
    """Chest X-rays of the RSNA Pneumonia Detection Challenge: normal, or with lung opacity and its boxes.

    The challenge's "patientId" is an image's id: only with RSNA's mapping to NIH's images are patients kept apart.

    Args:
        root: Folder with ``stage_2_train_images/*.dcm`` and the challenge's two CSV files; or with ``images/*.png`` and
            ``data.json``.
        mapping_file: ``pneumonia-challenge-dataset-mappings_2018.json``. Defaults to the file of its name in ``root``,
            if it is there.
        kwargs: As `PublishedDataModule` has them.
    """

    source = RSNA_SOURCE

    def __init__(
        self,
        root: str | Path | None = None,
        mapping_file: str | Path | None = None,
        **kwargs: Any,  # noqa: ANN401 # those of the base class, which checks them
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.mapping_file = mapping_file

    def _is_there(self) -> bool:
        return has_rsna(self.root)

    def _make_samples(self) -> DataFrame:
        return make_rsna_dataset(
            self.root,
            self.protocol,
            mapping_file=self.mapping_file,
            deduplicate=self.deduplicate,
            seed=self._split_seed,
        )
