"""APTOS 2019 as a datamodule."""

from __future__ import annotations

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.aptos2019 import SOURCE, is_aptos2019, make_aptos2019_dataset


class APTOS2019(PublishedDataModule):
    """APTOS 2019: fundus images without and with diabetic retinopathy.

    Both protocols compute the papers' split (1000 images of grade 0, shuffled with seed 1, for training), in a way that
    we could not compare with the papers' files; see ``make_aptos2019_dataset``.

    Its parameters are those of `PublishedDataModule`.
    """

    source = SOURCE

    def _is_there(self) -> bool:
        return is_aptos2019(self.root)

    def _make_samples(self) -> DataFrame:
        return make_aptos2019_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
