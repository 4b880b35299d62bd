"""LAG: its authors' folders and the prepared layout."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_medical.data import LAG, make_lag_dataset
from anomalib_medical.data.published import lag
from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.errors import MedicalError
from tests.helpers.published_trees import write_lag, write_prepared

SMALL = PublishedCounts(train=4, test_normal=2, test_abnormal=3, unlabeled_normal=2, unlabeled_abnormal=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_lag(tmp_path / "lag", count=8)


def test_attention_maps_are_no_masks(root: Path) -> None:
    (root / "non_glaucoma" / "attention_map" / "0000.jpg").unlink()
    samples = make_lag_dataset(root)
    assert samples.label.value_counts().to_dict() == {"good": 8, "glaucoma": 8}
    assert set(samples.mask_path) == {""}
    assert samples.attrs["task"] == "classification"
    for image, attention in zip(samples.image_path, samples.attention_map, strict=True):
        expected = image.replace("/image/", "/attention_map/")
        assert attention == (expected if "0000.jpg" not in image else "")


def test_the_division_has_the_papers_proportions(root: Path) -> None:
    found = PublishedCounts.of(make_lag_dataset(root))
    # 811 of 3143 normals and 811 of 1711 abnormal images are tested, 832 of the other normals unlabeled.
    assert found == PublishedCounts(train=4, test_normal=2, test_abnormal=4, unlabeled_normal=2, unlabeled_abnormal=4)


def test_the_division_follows_the_seed_and_not_the_folder(root: Path, tmp_path: Path) -> None:
    def tested(folder: Path, seed: int) -> set[str]:
        samples = make_lag_dataset(folder, seed=seed)
        return {Path(path).name for path in samples[samples.split == "test"].image_path}

    first = tested(root, 0)
    moved = root.rename(tmp_path / "elsewhere")
    assert tested(moved, 0) == first
    assert any(tested(moved, seed) != first for seed in range(1, 4))


def test_the_folders_do_not_say_the_papers_split(root: Path) -> None:
    with pytest.raises(MedicalError, match=r"data/LAG/data\.json of https://github.com/caiyu6666/DDAD-ASR"):
        make_lag_dataset(root, "published")


def test_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_prepared(tmp_path, SMALL, ".jpg")
    with pytest.raises(MedicalError, match="the papers have train 1500"):
        make_lag_dataset(root, "published")
    monkeypatch.setattr(lag, "ABOUT", replace(lag.ABOUT, counts=SMALL))
    assert PublishedCounts.of(make_lag_dataset(root, "published")) == SMALL


def test_an_image_in_both_classes_is_refused(root: Path) -> None:
    shutil.copy(root / "non_glaucoma" / "image" / "0003.jpg", root / "suspicious_glaucoma" / "image")
    with pytest.raises(MedicalError, match=r"image 0003\.jpg is both in non_glaucoma/image and suspicious"):
        make_lag_dataset(root)


def test_label_files_that_contradict_their_folder_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_lag_dataset(root)
    assert not caplog.text
    (root / "non_glaucoma" / "label" / "0002.txt").write_text("1")
    (root / "non_glaucoma" / "label" / "0004.txt").write_text("glaucoma?")
    assert make_lag_dataset(root).label_index.sum() == 8
    assert "2 of 8 label files" in caplog.text
    assert "not say 0, such as 0002.txt" in caplog.text


def test_a_class_without_images_is_refused(root: Path) -> None:
    shutil.rmtree(root / "suspicious_glaucoma")
    with pytest.raises(FileNotFoundError, match=r"No images in .*suspicious_glaucoma/image"):
        make_lag_dataset(root)


def test_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)smilell/AG-CNN.*academic.*on request.*non_glaucoma/image"):
        LAG(tmp_path, num_workers=0).prepare_data()
