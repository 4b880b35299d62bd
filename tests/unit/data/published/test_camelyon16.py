"""Camelyon16 as patches: BMAD's layout, anomalib's, and the prepared one."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anomalib.data.datasets.image.bmad import make_bmad_dataset
from PIL import Image

from anomalib_medical.data import Camelyon16, make_camelyon16_dataset
from anomalib_medical.data.published import camelyon16
from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.errors import MedicalError
from tests.helpers.published_trees import write_anomalib_bmad, write_camelyon16, write_image, write_prepared

SMALL = PublishedCounts(train=6, test_normal=6, test_abnormal=6)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_camelyon16(tmp_path / "camelyon16")


def test_bmads_own_folders(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    samples = make_camelyon16_dataset(root)
    assert PublishedCounts.of(samples) == SMALL
    assert set(samples.mask_path) == {""}
    assert samples.attrs["task"] == "classification"
    assert not samples.image_path.str.contains("/valid/").any()
    assert "left out 12 images of valid/" in caplog.text


def test_the_folders_that_anomalibs_bmad_reads(tmp_path: Path) -> None:
    """The same images, parts and labels as anomalib's own table has; and ours can be read without masks."""
    root = write_anomalib_bmad(tmp_path)
    theirs = make_bmad_dataset(root / "Histopathology")
    theirs = theirs[theirs.split != "valid"]
    ours = make_camelyon16_dataset(root)
    columns = ["split", "image_path", "label", "label_index"]
    assert sorted(map(tuple, ours[columns].to_numpy())) == sorted(map(tuple, theirs[columns].to_numpy()))
    assert make_camelyon16_dataset(root / "Histopathology").equals(ours)
    data = Camelyon16(root, num_workers=0, val_split_ratio=0.5)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.test_dataloader()))
    assert batch.gt_label.sum() == 6
    assert batch.gt_mask is None


def test_masks_where_there_are_some(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_anomalib_bmad(tmp_path)
    folder = root / "Histopathology" / "test"
    for name in ("1000.png", "1001.png", "9999.png"):
        write_image(folder / "Ungood" / "label" / name)
    shutil.copytree(folder / "good" / "img", folder / "good" / "label")
    samples = make_camelyon16_dataset(root)
    masked = samples[samples.mask_path != ""]
    assert samples.attrs["task"] == "segmentation"
    assert masked.mask_path.to_list() == [str(folder / "Ungood" / "label" / f"100{n}.png") for n in range(2)]
    assert masked.image_path.to_list() == [str(folder / "Ungood" / "img" / f"100{n}.png") for n in range(2)]
    assert PublishedCounts.of(samples) == SMALL
    assert "1 mask in" in caplog.text


def test_a_slide_is_a_patient_and_leaks_are_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for slide in range(4):
        for patch in range(3):
            write_image(tmp_path / "train" / "good" / f"normal_{slide:03d}_{patch}.png")
    write_image(tmp_path / "train" / "good" / "tumor_007-4.png")
    write_image(tmp_path / "test" / "good" / "test_001_2.png")
    write_image(tmp_path / "test" / "good" / "normal_003_9.png")
    write_image(tmp_path / "test" / "Ungood" / "tumor_007_1.png")
    samples = make_camelyon16_dataset(tmp_path)
    assert set(samples[samples.split == "train"].patient_id) == {"normal_000", "normal_001", "normal_002"}
    assert set(samples[samples.split == "test"].patient_id) == {"test_001", "normal_003", "tumor_007"}
    assert "dropped 4 of 13 images from train" in caplog.text
    assert "name a slide" not in caplog.text


def test_numbered_patches_get_a_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(6):  # a number of three digits is no slide
        write_image(root / "train" / "good" / f"normal_{number:03d}.png")
    assert make_camelyon16_dataset(root).patient_id.is_unique
    assert "24 of 24 file names do not name a slide" in caplog.text


def test_published(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MedicalError, match=r"found train 6, .*; the papers have train 5088, test 997 .* 1000"):
        make_camelyon16_dataset(root, "published")
    monkeypatch.setattr(camelyon16, "ABOUT", replace(camelyon16.ABOUT, counts=SMALL))
    assert PublishedCounts.of(make_camelyon16_dataset(root, "published")) == SMALL
    prepared = write_prepared(tmp_path / "prepared", SMALL)
    assert PublishedCounts.of(make_camelyon16_dataset(prepared, "published")) == SMALL


@pytest.mark.parametrize(("folder", "expected"), [("train/Ungood", "expected good"), ("test/tumour", "good, Ungood")])
def test_a_folder_of_unknown_label_is_refused(root: Path, folder: str, expected: str) -> None:
    write_image(root / folder / "1.png")
    with pytest.raises(MedicalError, match=rf"has the folder '{Path(folder).name}'.*{expected}"):
        make_camelyon16_dataset(root)


def test_a_class_without_images_is_refused(root: Path) -> None:
    shutil.rmtree(root / "test" / "Ungood")
    with pytest.raises(FileNotFoundError, match=r"No images in .*test/Ungood"):
        make_camelyon16_dataset(root)


def test_near_duplicates_on_request(root: Path) -> None:
    shutil.copy(root / "test" / "good" / "1002.png", root / "train" / "good" / "1004.png")
    with Image.open(root / "test" / "Ungood" / "1003.png") as image:
        brighter = Image.fromarray(np.asarray(image) // 2 + 100)
    brighter.save(root / "train" / "good" / "1005.png")
    assert PublishedCounts.of(make_camelyon16_dataset(root)) == SMALL
    assert PublishedCounts.of(make_camelyon16_dataset(root, deduplicate=True)) == PublishedCounts(4, 6, 6)


def test_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)DorisBao/BMAD.*CC BY-NC-SA.*download=true.*<root>/train/good"):
        Camelyon16(tmp_path, num_workers=0).prepare_data()
