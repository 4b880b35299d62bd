"""Camelyon16 as patches (HIS): lymph node tissue without and with metastases, in BMAD's layout."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.download import Archive
from anomalib_medical.data.published.bmad import SLIDE, list_bmad, named_patients
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.dataset import Protocol, PublishedCounts, PublishedSet, apply_protocol

ABOUT = PublishedSet(
    name="Camelyon16",
    title="Camelyon16 as patches (BMAD's Histopathology)",
    url="https://github.com/DorisBao/BMAD",
    licence="CC BY-NC-SA 4.0",
    access="download BMAD from its page, or with anomalib's BMAD datamodule",
    tree="""
  <root>/train/good/*.png
  <root>/test/good/*.png
  <root>/test/Ungood/*.png
or, in test/, good/img/*.png and Ungood/{img,label}/*.png; or all of this in <root>/Histopathology; or
  <root>/images/*.png
  <root>/data.json""",
    original=(("train", "Histopathology/train"),),
    counts=PublishedCounts(train=5088, test_normal=997, test_abnormal=1000),
    # All six sets of BMAD, where anomalib's own datamodule has them from. We have not seen this archive.
    archives=(Archive("https://huggingface.co/datasets/code-dev05/BMAD/resolve/main/bmad.zip", "bmad.zip"),),
)


def make_camelyon16_dataset(
    root: str | Path, protocol: Protocol = "clean", *, deduplicate: bool = False, seed: int = 0
) -> DataFrame:
    """List the patches: ``good`` is normal, ``Ungood`` shows a metastasis.

    BMAD's ``valid`` is left out, as in the papers: its labelled anomalies would fit the threshold. A slide
    (``normal_001``, ``tumor_001``, ``test_001`` in the file's name, before the patch's number or place) is a patient;
    BMAD's own names do not say it, there every patch is taken for a patient.

    ``root`` may be the folder of all of BMAD's sets. The other arguments, outcome and errors are those of
    `apply_protocol`; the files give the split.
    """
    samples = ABOUT.samples_in(Path(root), _list_patches)
    samples = samples.assign(patient_id=named_patients(samples, SLIDE, ABOUT.name, "slide"))
    return apply_protocol(samples, ABOUT, protocol, deduplicate=deduplicate, seed=seed)


def _list_patches(root: Path) -> DataFrame:
    base = root if (root / "train").exists() else root / "Histopathology"
    return list_bmad(base, ABOUT.name)


class Camelyon16(PublishedDataModule):
    """Camelyon16 as patches (HIS): tissue without and with metastases, as BMAD lays it out.

    Its parameters are those of `PublishedDataModule`. ``root`` may be the folder of all of BMAD's sets; ``download``
    gets them all.
    """

    about = ABOUT

    def _make_samples(self) -> DataFrame:
        return make_camelyon16_dataset(self.root, self.protocol, deduplicate=self.deduplicate, seed=self._split_seed)
