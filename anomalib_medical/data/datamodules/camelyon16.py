"""Camelyon16 as patches, as a datamodule."""

from __future__ import annotations

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.camelyon16 import SOURCE, is_camelyon16, make_camelyon16_dataset


class Camelyon16(PublishedDataModule):
    """Camelyon16 as patches (HIS): tissue without and with metastases, as BMAD lays it out.

    Its parameters are those of `PublishedDataModule`. ``root`` may be the folder of all of BMAD's sets; ``download``
    gets them all.
    """

    source = SOURCE

    def _is_there(self) -> bool:
        return is_camelyon16(self.root)

    def _make_samples(self) -> DataFrame:
        return make_camelyon16_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
