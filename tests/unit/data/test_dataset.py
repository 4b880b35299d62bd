"""Folders and files to predict, at full bit depth."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.uid import BasicTextSRStorage
from torch.utils.data import DataLoader

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.io import ImageReadError
from tests.helpers.dicom_files import make_dicom, write_dicom


def put(path: Path, value: int = 100, dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 6), value, dtype)).save(path)
    return path


def test_a_folder_is_searched_at_any_depth_in_a_fixed_order(tmp_path: Path) -> None:
    root = tmp_path / "Größe_脑"
    paths = [put(root / name) for name in ("b.PNG", "a/ü.jpg", "a/b/c.tif", "a/d.bmp")]
    put(root / "._b.png")
    (root / "notes.txt").touch()
    data = MedicalPredictDataset(root)
    assert [str(address) for address in data.addresses] == [str(path) for path in sorted(paths)]
    assert [data[index].image_path for index in range(len(data))] == [str(path) for path in sorted(paths)]


def test_batches_are_what_the_engine_needs(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    data = MedicalPredictDataset(str(tmp_path))
    (batch,) = DataLoader(data, collate_fn=data.collate_fn)
    assert batch.image.shape == (1, 3, 8, 6)
    assert batch.image_path == [str(tmp_path / "a.png")]
    assert batch.gt_label is None


def test_16_bit_images_look_like_their_8_bit_versions(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "08.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    data = MedicalPredictDataset(tmp_path)
    torch.testing.assert_close(data[1].image, data[0].image)
    assert data[1].image.std() > 0.2


def test_one_file_may_have_any_name(tmp_path: Path) -> None:
    path = put(tmp_path / "scan.png").rename(tmp_path / "scan.0001")
    assert MedicalPredictDataset(path)[0].image.shape == (3, 8, 6)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        MedicalPredictDataset(tmp_path / "nowhere")


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=rf"no image to predict in {tmp_path}: expected PNG"):
        MedicalPredictDataset(tmp_path)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(ImageReadError, match=r"a\.png: found text"):
        MedicalPredictDataset(tmp_path)[0]


def test_reports_among_images_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dicom(tmp_path / "IM1", np.zeros((8, 8), np.uint8))
    report = make_dicom(np.zeros((8, 8), np.uint8), Rows=None, Columns=None, SOPClassUID=BasicTextSRStorage)
    del report.PixelData
    report.save_as(tmp_path / "SR1", enforce_file_format=True)
    assert len(MedicalPredictDataset(tmp_path)) == 1
    assert "Left out 1 DICOM object that shows no patient to learn from or to score" in caplog.text
    (tmp_path / "IM1").unlink()
    with pytest.raises(ImageReadError, match=r"no image to predict in .*1 DICOM object that shows no patient"):
        MedicalPredictDataset(tmp_path)


def test_hidden_folders_are_left_out_and_linked_ones_read_once(tmp_path: Path) -> None:
    put(tmp_path / "scans" / "a.png")
    put(tmp_path / "scans" / ".ipynb_checkpoints" / "a-checkpoint.png")
    put(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "scans" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "scans" / "loop").symlink_to(tmp_path / "scans", target_is_directory=True)
    names = [address.path.name for address in MedicalPredictDataset(tmp_path / "scans").addresses]
    assert names == ["a.png", "b.png"]


def test_a_linked_folder_is_read(tmp_path: Path) -> None:
    put(tmp_path / "there" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "there", target_is_directory=True)
    (address,) = MedicalPredictDataset(tmp_path / "link").addresses
    assert address.path == tmp_path / "link" / "a.png"


@pytest.mark.timeout(20)
def test_what_is_left_out_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.gif")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    write_dicom(tmp_path / "seg.dcm", np.zeros((8, 8), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    assert len(MedicalPredictDataset(tmp_path)) == 1
    (record,) = caplog.records
    for part in (".gif: 1, such as", "broken link: 1", "named pipe: 1", "Segmentation: 1"):
        assert part in record.getMessage()


@pytest.mark.timeout(20)
def test_a_pipe_is_no_image_to_predict(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png is a named pipe: expected an image"):
        MedicalPredictDataset(tmp_path / "a.png")


def test_nothing_but_other_formats(tmp_path: Path) -> None:
    put(tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match=r"no image to predict in .*Left out 1 file that is no .*\.gif: 1"):
        MedicalPredictDataset(tmp_path)


def test_one_object_that_shows_no_patient(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((8, 8), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    with pytest.raises(ImageReadError, match=r"no image to predict.*Segmentation: 1"):
        MedicalPredictDataset(path)
