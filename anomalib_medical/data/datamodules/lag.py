"""LAG as a datamodule."""

from __future__ import annotations

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.lag import SOURCE, is_lag, make_lag_dataset


class LAG(PublishedDataModule):
    """LAG: fundus images without and with suspected glaucoma.

    ``protocol="published"`` needs the papers' ``data.json``, which is public; an error says where it is. Attention maps
    are no masks.

    Its parameters are those of `PublishedDataModule`.
    """

    source = SOURCE

    def _is_there(self) -> bool:
        return is_lag(self.root)

    def _make_samples(self) -> DataFrame:
        return make_lag_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
