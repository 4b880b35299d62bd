"""Brain Tumor MRI of Kaggle, as a datamodule."""

from __future__ import annotations

from pandas import DataFrame

from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datasets.brain_tumor_mri import SOURCE, is_brain_tumor_mri, make_brain_tumor_mri_dataset


class BrainTumorMRI(PublishedDataModule):
    """Brain Tumor MRI: slices without a tumour against gliomas and meningiomas.

    Kaggle's folders Training and Testing are taken as one set, as the papers do, and copies are found and count as one
    patient: 88% of the normal test images have one in Training. ``protocol="published"`` needs the papers'
    ``data.json``, which is public; the folders alone do not say it, and an error says where it is. Pituitary tumours
    are left out, as in the papers.

    Its parameters are those of `PublishedDataModule`, with ``deduplicate`` true by default.
    """

    source = SOURCE
    deduplicate_by_default = True

    def _is_there(self) -> bool:
        return is_brain_tumor_mri(self.root)

    def _make_samples(self) -> DataFrame:
        return make_brain_tumor_mri_dataset(
            self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed
        )
