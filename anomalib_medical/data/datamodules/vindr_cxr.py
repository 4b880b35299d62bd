"""VinDr-CXR."""

from __future__ import annotations

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.vindr_cxr import VINDR_SOURCE, has_vindr, make_vindr_dataset


class VinDrCXR(PublishedDataModule):
    """Chest X-rays of VinDr-CXR: normal if all three readers found nothing, else abnormal with the boxes of all.

    The root holds ``train/*.dicom`` and ``train.csv``, PhysioNet's ``annotations/``, resized images with
    ``train_meta.csv``, or ``images/*.png`` and ``data.json``. Parameters are those of `PublishedDataModule`.
    """

    source = VINDR_SOURCE

    def _is_there(self) -> bool:
        return has_vindr(self.root)

    def _make_samples(self) -> DataFrame:
        return make_vindr_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
