"""Brain Tumor MRI: Kaggle's folders and the prepared layout."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from anomalib_medical.data import BrainTumorMRI, make_brain_tumor_mri_dataset
from anomalib_medical.data.published import brain_tumor_mri
from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.errors import MedicalError
from tests.helpers.published_trees import write_brain_tumor_mri, write_prepared

SMALL = PublishedCounts(train=5, test_normal=3, test_abnormal=2, unlabeled_normal=2, unlabeled_abnormal=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_brain_tumor_mri(tmp_path / "brain", count=5)


def parts(root: Path, **kwargs) -> dict[str, str]:
    """The part of each image, by its path below the root."""
    samples = make_brain_tumor_mri_dataset(root, **kwargs)
    return {
        Path(path).relative_to(root).as_posix(): part
        for path, part in zip(samples.image_path, samples.split, strict=True)
    }


def test_two_tumours_are_abnormal_and_pituitary_is_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    samples = make_brain_tumor_mri_dataset(root)
    assert samples.label.value_counts().to_dict() == {"good": 10, "glioma": 10, "meningioma": 10}
    assert (samples.label_index == (samples.label != "good")).all()
    assert samples.attrs["task"] == "classification"
    assert set(samples[samples.split == "train"].label) == {"good"}
    assert set(samples.split) == {"train", "unlabeled", "test"}
    assert "left out 10 images of pituitary" in caplog.text


def test_copies_stand_on_one_side_and_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    originals = sorted((root / "Training" / "notumor").iterdir())
    shutil.copy(originals[0], root / "Testing" / "notumor" / "Te-no_0100.jpg")
    for number, original in enumerate(originals[1:]):
        Image.open(original).resize((48, 48)).save(root / "Testing" / "notumor" / f"Te-no_01{number}1.jpg", quality=90)
    assert len(parts(root, deduplicate=False)) == 35
    for seed in range(4):
        divided = make_brain_tumor_mri_dataset(root, seed=seed)
        tested = set(divided[divided.split == "test"].patient_id)
        assert not tested & set(divided[divided.split != "test"].patient_id)
        assert len(divided) <= 32  # one copy may stay in the training set and one in the pool
        normal = divided[(divided.label == "good") & (divided.split != "unlabeled")]
        assert not normal.patient_id.duplicated().any()
    assert "copies of others in it" in caplog.text


def test_the_division_follows_the_seed_and_not_the_folder(root: Path, tmp_path: Path) -> None:
    first = parts(root, seed=3)
    moved = root.rename(tmp_path / "elsewhere")
    assert parts(moved, seed=3) == first
    assert any(parts(moved, seed=seed) != first for seed in range(3))


def test_kaggles_folders_do_not_say_the_papers_split(root: Path) -> None:
    with pytest.raises(MedicalError, match=r"data/BrainTumor/data\.json of https://github.com/caiyu6666/DDAD-ASR"):
        make_brain_tumor_mri_dataset(root, "published")


def test_published_needs_the_papers_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_prepared(tmp_path, SMALL, ".jpg")
    with pytest.raises(MedicalError, match=r"found train 5, .*; the papers have train 1000, test 600 normal \+ 600"):
        make_brain_tumor_mri_dataset(root, "published")
    monkeypatch.setattr(brain_tumor_mri, "ABOUT", replace(brain_tumor_mri.ABOUT, counts=SMALL))
    assert PublishedCounts.of(make_brain_tumor_mri_dataset(root, "published")) == SMALL


def test_clean_of_the_published_split_drops_what_leaks(tmp_path: Path) -> None:
    root = write_prepared(tmp_path, SMALL)
    shutil.copy(root / "images" / "test_0_0.png", root / "images" / "train_0.png")
    samples = make_brain_tumor_mri_dataset(root)
    assert PublishedCounts.of(samples) == PublishedCounts(4, 3, 2, 2, 3)
    assert not samples.image_path.str.endswith("train_0.png").any()


def test_a_folder_of_unknown_label_is_refused(root: Path) -> None:
    (root / "Training" / "no_tumor").mkdir()
    with pytest.raises(MedicalError, match=r"Training has the folder 'no_tumor'.*expected notumor, glioma"):
        make_brain_tumor_mri_dataset(root)


def test_half_a_dataset_is_refused(root: Path) -> None:
    shutil.rmtree(root / "Testing")
    with pytest.raises(FileNotFoundError, match=r"No images in .*Testing/notumor"):
        make_brain_tumor_mri_dataset(root)


def test_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)kaggle.*CC0.*Kaggle account.*<root>/Training/") as error:
        BrainTumorMRI(tmp_path, num_workers=0).prepare_data()
    assert "download=true" not in str(error.value)


def test_the_datamodule_deduplicates_unless_told_otherwise(tmp_path: Path) -> None:
    assert BrainTumorMRI(tmp_path).deduplicate
    assert not BrainTumorMRI(tmp_path, deduplicate=False).deduplicate


def test_what_is_left_out_is_one_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("Training", "Testing"):
        Image.new("L", (8, 8)).save(root / part / "glioma" / "x.gif")
    datamodule = BrainTumorMRI(root, num_workers=0)
    datamodule.setup()
    assert caplog.text.count("Left out 2 files that are no PNG") == 1
    assert [path.name for path in datamodule.left_out.unread[".gif"]] == ["x.gif", "x.gif"]
