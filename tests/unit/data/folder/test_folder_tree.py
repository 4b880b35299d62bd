"""What lies in a folder tree and is no image: named in one warning, kept from the data, and asked for by the audit."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.data import MedicalFolder, make_medical_folder_dataset
from tests.helpers.dicom_files import write_dicom

NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
SEGMENTATION, DOSE = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.2"


def put(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/good/a.png", "train/good/b.png", "test/good/c.png", "test/bad/d.png"):
        put(tmp_path / name)
    return tmp_path


@pytest.mark.timeout(30)
def test_all_that_is_left_out_is_one_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(root / "train" / "good" / "e.gif")
    put(root / "test" / "bad" / "f.gif")
    (root / "test" / "good" / "g.mha").write_bytes(b"ObjectType = Image\n")
    os.mkfifo(root / "test" / "bad" / "pipe.png")
    (root / "ground_truth" / "bad").mkdir(parents=True)
    (root / "ground_truth" / "bad" / "d.png").symlink_to("nowhere.png")
    (root / "unlabeled").mkdir()
    put(root / "unlabeled" / "h.png", 7)
    put(root / "unlabeled" / "i.gif")
    datamodule = MedicalFolder(root, num_workers=0)
    datamodule.setup()
    (warning,) = [record.getMessage() for record in caplog.records if "Left out" in record.getMessage()]
    assert f"{root}: Left out 6 files" in warning
    assert ".gif: 3, such as" in warning
    assert "broken link: 1" in warning
    assert "named pipe: 1" in warning
    assert sum(map(len, datamodule.left_out.unread.values())) == 6
    assert len(datamodule.test_data) == 2


def test_nothing_is_said_where_all_is_read(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "test" / "bad" / "notes.txt").write_text("text")
    MedicalFolder(root, num_workers=0).setup()
    assert caplog.text == ""


def test_no_normals_but_files_that_are_not_read(tmp_path: Path) -> None:
    put(tmp_path / "train" / "good" / "a.gif")
    with pytest.raises(FileNotFoundError, match=r"No normal images in .*Left out 1 file that is no PNG.*\.gif: 1"):
        make_medical_folder_dataset(tmp_path)


def test_objects_that_show_no_patient_disturb_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not the table, not the patients, and not the pattern that finds them."""
    for number, part in enumerate(["train/good", "train/good", "test/good", "test/bad"]):
        write_dicom(tmp_path / part / f"p{number}_1.dcm", PIXELS + number, PatientID=f"{number}")
        write_dicom(tmp_path / part / "seg.dcm", PIXELS, SOPClassUID=SEGMENTATION, PatientID="9")
        write_dicom(tmp_path / part / "IM9", PIXELS, SOPClassUID=DOSE, PatientID="0")
    table = make_medical_folder_dataset(tmp_path, patient_pattern=r"^(p\d)_")
    assert sorted(Path(path).name for path in table.image_path) == ["p0_1.dcm", "p1_1.dcm", "p2_1.dcm", "p3_1.dcm"]
    assert sorted(table.patient_id) == ["p0", "p1", "p2", "p3"]
    assert "Left out 6 DICOM objects that show no patient to learn from or to score" in caplog.text
    assert "RT Dose: 3, such as" in caplog.text
    assert "LEAK" not in caplog.text


def test_a_dicom_segmentation_is_a_mask_all_the_same(root: Path) -> None:
    write_dicom(root / "ground_truth" / "bad" / "d.dcm", np.eye(8, dtype=np.uint8), SOPClassUID=SEGMENTATION)
    datamodule = MedicalFolder(root, num_workers=0)
    datamodule.setup()
    item = datamodule.test_data[list(datamodule.test_data.samples.label_index).index(1)]
    assert np.array_equal(item.gt_mask.numpy(), np.eye(8))
    assert datamodule.left_out.no_images == {}


@pytest.mark.parametrize(("image", "mask"), [(NFC, NFD), (NFD, NFC)])
def test_masks_and_class_folders_are_found_in_either_spelling(root: Path, caplog, image: str, mask: str) -> None:
    put(root / "test" / f"tumeur {image}" / f"{image}.png")
    put(root / "ground_truth" / f"tumeur {mask}" / f"{mask}_mask.png", 255)
    table = make_medical_folder_dataset(root)
    assert table.attrs["task"] == "segmentation"
    assert "belong to no image" not in caplog.text
    (row,) = table[table.mask_path != ""].itertuples()
    assert Path(row.image_path).name == f"{image}.png"


def test_where_both_spellings_are_there_each_has_its_own_mask(root: Path) -> None:
    for spelling, value in ((NFC, 10), (NFD, 20)):
        put(root / "test" / "bad" / f"{spelling}.png")
        put(root / "ground_truth" / "bad" / f"{spelling}.png", value)
    table = make_medical_folder_dataset(root)
    for row in table[table.mask_path != ""].itertuples():
        assert Path(row.image_path).name == Path(row.mask_path).name


def test_a_pattern_finds_patients_in_either_spelling(tmp_path: Path) -> None:
    for part, name in (("train/good", f"{NFC}_1"), ("train/good", f"{NFD}_2"), ("test/good", "b_3")):
        put(tmp_path / part / f"{name}.png")
    table = make_medical_folder_dataset(tmp_path, patient_pattern=f"^({NFD}|b)_")
    assert sorted(table.patient_id) == ["b", NFC, NFC]


def test_a_root_in_the_other_spelling(root: Path) -> None:
    root.rename(root.with_name(f"donn{NFD}es"))
    datamodule = MedicalFolder(root.with_name(f"donn{NFC}es"), num_workers=0)
    datamodule.setup()
    assert len(datamodule.test_data) == 2


def test_formats_that_tell_the_label_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    put(root / "test" / "good" / "e.jpg")
    put(root / "test" / "bad" / "e.JPEG")
    make_medical_folder_dataset(root)
    assert caplog.text == ""
    put(root / "test" / "bad" / "f.webp")
    put(root / "test" / "bad" / "g.pgm")
    make_medical_folder_dataset(root)
    assert "2 of 4 abnormal images are stored as .pgm, .webp, and no normal image is" in caplog.text


@pytest.mark.parametrize("name", ["test/x.png", "train/x.png", "train/normal/x.png", "ground_truth/x.png"])
def test_images_outside_the_class_folders_are_said(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    put(root / name)
    assert len(make_medical_folder_dataset(root)) == 4
    (message,) = caplog.messages
    assert message.startswith(f"{root}: left out 1 image outside train/good, test/<class> and ground_truth/<class>")
    assert str(root / name) in message


@pytest.mark.parametrize("name", ["ground_truth", "ground_truth/bad", "test/tumour", "train/good/more", "unlabeled"])
def test_folders_that_are_broken_links_are_said(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to("nowhere")
    assert len(make_medical_folder_dataset(root)) == 4
    (message,) = [message for message in caplog.messages if "Left out" in message]
    assert f"broken link: 1, such as {root / name}" in message


def test_a_class_in_both_spellings_is_one(root: Path) -> None:
    put(root / "test" / f"tumeur {NFC}" / "e.png")
    put(root / "test" / f"tumeur {NFD}" / "f.png")
    assert set(make_medical_folder_dataset(root).label) == {"good", "bad", f"tumeur {NFC}"}
