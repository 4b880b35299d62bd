"""ISIC 2018, task 3, as a datamodule."""

from __future__ import annotations

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.isic2018 import (
    LESION_FILE,
    SOURCE,
    has_lesions,
    is_isic2018,
    make_isic2018_dataset,
)
from anomalib_medical.data.download import download


class ISIC2018(PublishedDataModule):
    """ISIC 2018, task 3: nevi against six other skin lesions.

    Both protocols train on the training set's nevi and test on the test set. A lesion is a patient.

    Its parameters are those of `PublishedDataModule`. ``download`` gets what is missing from the challenge's public
    storage.
    """

    source = SOURCE

    def prepare_data(self) -> None:
        """Download the dataset, and the file that says which images show one lesion, where that is wanted.

        Raises:
            DatasetNotFoundError: If it is not in the root.
            DownloadError: If the download fails.
        """
        super().prepare_data()
        if self.download and not has_lesions(self.root):
            download(LESION_FILE, self.root)

    def _is_there(self) -> bool:
        return is_isic2018(self.root)

    def _make_samples(self) -> DataFrame:
        return make_isic2018_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
