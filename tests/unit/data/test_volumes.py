"""NIfTI volumes and multi-frame DICOM in a user's folder: slices, labels, masks, patients."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from anomalib_medical.data import MedicalFolder, MedicalPredictDataset, make_medical_folder_dataset
from anomalib_medical.io import ImageReadError, Slicing
from tests.helpers.dicom_files import write_dicom

SHAPE = (6, 5, 4)


def volume(path: Path, values: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16) if values is None else values
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three normal volumes to learn from, one to test, one with a lesion in its second slice."""
    for index in range(3):
        volume(tmp_path / "train" / "good" / f"n{index}.nii.gz")
    volume(tmp_path / "test" / "good" / "n9.nii")
    volume(tmp_path / "test" / "lesion" / "a.nii.gz")
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 1, 1] = 1
    volume(tmp_path / "ground_truth" / "lesion" / "a.nii.gz", mask)
    return tmp_path


def test_every_slice_is_an_image_of_one_patient(root: Path) -> None:
    table = make_medical_folder_dataset(root)
    train = table[table.split == "train"]
    assert len(train) == 3 * 4
    assert train.patient_id.nunique() == 3
    assert train.image_path.iloc[1] == f"{root / 'train/good/n0.nii.gz'}#axial=1"


def test_a_slice_is_abnormal_if_its_mask_is_not_empty(root: Path) -> None:
    table = make_medical_folder_dataset(root)
    lesion = table[table.image_path.str.contains("/a.nii.gz")]
    assert list(lesion.label_index) == [0, 1, 0, 0]
    assert list(lesion.label) == ["good", "lesion", "good", "good"]
    datamodule = MedicalFolder(root, num_workers=0)
    datamodule.setup()
    abnormal = [item for item in datamodule.test_data if item.gt_label]
    assert [int(item.gt_mask.sum()) for item in abnormal] == [1]
    assert abnormal[0].image.shape[-2:] == abnormal[0].gt_mask.shape


def test_without_a_mask_all_slices_have_the_volumes_label(root: Path) -> None:
    (root / "ground_truth/lesion/a.nii.gz").unlink()
    table = make_medical_folder_dataset(root)
    assert list(table[table.label == "lesion"].label_index) == [1] * 4


def test_validation_holds_out_whole_volumes(root: Path) -> None:
    datamodule = MedicalFolder(root, num_workers=0)
    datamodule.setup()
    assert len(datamodule.val_data) == 4
    assert datamodule.val_data.samples.patient_id.nunique() == 1
    assert not set(datamodule.val_data.samples.patient_id) & set(datamodule.train_data.samples.patient_id)


def test_axis_and_range(root: Path) -> None:
    datamodule = MedicalFolder(root, num_workers=0, axis="sagittal", slice_range=(0.3, 0.7))
    datamodule.setup()
    chosen = set(datamodule.train_data.samples.image_path.str.rpartition("#")[2])
    assert chosen < {f"sagittal={index}" for index in range(6)}
    assert {datamodule.train_data[0].image.shape[-2:]} == {(4, 5)}


def test_a_mask_of_another_shape_is_refused(root: Path) -> None:
    mask = root / "ground_truth/lesion/a.nii.gz"
    volume(mask, np.ones((6, 5, 3), np.uint8))
    with pytest.raises(ImageReadError, match="neither says where it lies in the body, and their grids are 6 x 5 x 3"):
        make_medical_folder_dataset(root)
    volume(mask, np.ones((*SHAPE, 2), np.uint8))
    with pytest.raises(ImageReadError, match=r"holds 2 volumes, its image .* 1"):
        make_medical_folder_dataset(root)


def test_a_volume_and_its_own_slice_are_refused(root: Path) -> None:
    rows = "train/good/n0.nii.gz,normal\ntrain/good/n0.nii.gz#axial=1,normal\n"
    (root / "list.csv").write_text(f"path,label\n{rows}")
    with pytest.raises(
        ValueError, match=r"Listed twice, .* by its own address: 1 image, such as .*n0\.nii\.gz#axial=1"
    ):
        make_medical_folder_dataset(root, manifest=root / "list.csv")


def test_frames_of_a_dicom_file(tmp_path: Path) -> None:
    frames = np.stack([np.full((8, 6), value, np.uint8) for value in (10, 20, 30)])
    for index in range(4):
        write_dicom(tmp_path / "train" / "good" / f"IM{index}", frames, PatientID=f"id-{index % 2}", ViewPosition="PA")
    table = make_medical_folder_dataset(tmp_path)
    assert len(table) == 12
    assert table.patient_id.nunique() == 2
    assert not table.patient_id.str.contains("id-").any()
    assert set(table.meta_view) == {"PA"}


def test_a_bare_folder_of_both(tmp_path: Path) -> None:
    volume(tmp_path / "scan.nii.gz")
    write_dicom(tmp_path / "deep" / "IM0001", np.zeros((8, 6), np.uint16), PatientID="Jane")
    (tmp_path / "deep" / "notes.txt").write_text("no image")
    data = MedicalPredictDataset(tmp_path, slicing=Slicing("coronal"))
    assert len(data) == 1 + 5
    items = [data[index] for index in range(len(data))]
    assert items[0].image.shape == (3, 8, 6)
    assert {item.patient_id for item in items[1:]} == {str(tmp_path / "scan.nii.gz")}
    assert "Jane" not in items[0].patient_id
    datamodule = MedicalFolder(tmp_path, num_workers=0, axis="coronal")
    datamodule.setup("predict")
    assert len(datamodule.predict_dataloader()) == 6
