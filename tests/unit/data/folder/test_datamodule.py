"""A user's folder: every layout works or says what is wrong."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib import TaskType
from anomalib.data.transforms import SquarePad
from anomalib.data.utils import ValSplitMode
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Grayscale, Identity, Resize

from anomalib_medical.data import MedicalFolder, make_medical_folder_dataset
from anomalib_medical.io import ImageReadError
from tests.helpers.dicom_files import write_dicom
from tests.helpers.nifti_files import save_nifti


def put(path: Path, value: int = 100, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


def fill(folder: Path, names: list[str], **kwargs) -> None:
    for name in names:
        put(folder / name, **kwargs)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Ten training patients with two images each, two test patients with both kinds, all with masks."""
    root = tmp_path / "scans"
    fill(root / "train" / "good", [f"p{patient:02d}_{image}.png" for patient in range(10) for image in range(2)])
    fill(root / "test" / "good", ["p20_0.png", "p21_0.png"])
    fill(root / "test" / "tumour", ["p20_1.png", "p21_1.png"])
    fill(root / "ground_truth" / "tumour", ["p20_1.png", "p21_1.png"], value=255)
    return root


def ready(root: Path, **kwargs) -> MedicalFolder:
    datamodule = MedicalFolder(root, num_workers=0, **kwargs)
    datamodule.setup()
    return datamodule


def patients(data) -> set[str]:
    return set(data.samples.patient_id)


def test_validation_is_held_out_from_training_by_patient(tree: Path) -> None:
    datamodule = ready(tree, patient_pattern=r"(p\d+)_")
    assert datamodule.name == "scans"
    assert datamodule.task == TaskType.SEGMENTATION
    assert (len(datamodule.train_data), len(datamodule.val_data), len(datamodule.test_data)) == (16, 4, 4)
    assert not patients(datamodule.train_data) & patients(datamodule.val_data)
    assert set(datamodule.val_data.samples.label_index) == {0}
    assert not set(datamodule.val_data.samples.image_path) & set(datamodule.test_data.samples.image_path)


def test_batches(tree: Path) -> None:
    put(tree / "test" / "tumour" / "p22_1.png", value=200, size=(16, 8))
    put(tree / "ground_truth" / "tumour" / "p22_1_mask.png", value=1, size=(16, 8))
    datamodule = ready(tree, augmentations=Resize((8, 8)))
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.image.shape == (16, 3, 8, 8)
    assert batch.image.dtype == torch.float32
    assert not batch.gt_mask.any()
    batch = next(iter(datamodule.predict_dataloader()))
    assert batch.gt_label.tolist() == [False, False, True, True, True]
    assert batch.gt_mask.flatten(1).all(dim=1).tolist() == [False, False, True, True, True]
    assert [Path(path).name for path in batch.mask_path] == ["", "", "p20_1.png", "p21_1.png", "p22_1_mask.png"]
    assert torch.allclose(batch.image[4], torch.tensor(200 / 255))


def test_the_split_follows_the_seed_and_not_the_folder(tree: Path, tmp_path: Path) -> None:
    def held_out(root: Path, seed: int) -> set[str]:
        data = ready(root, seed=seed, patient_pattern=r"p\d+").val_data
        return {Path(path).name for path in data.samples.image_path}

    first = held_out(tree, seed=0)
    assert held_out(tree.rename(tmp_path / "elsewhere"), seed=0) == first
    assert any(held_out(tmp_path / "elsewhere", seed=seed) != first for seed in range(1, 4))


def test_the_split_without_a_pattern_follows_the_seed_and_not_the_folder(tree: Path, tmp_path: Path) -> None:
    names = [{Path(path).name for path in ready(tree).val_data.samples.image_path}]
    moved = tree.rename(tmp_path / "elsewhere")
    names.append({Path(path).name for path in ready(moved).val_data.samples.image_path})
    assert names[0] == names[1]


@pytest.mark.parametrize(("ratio", "images"), [(0.5, 10), (0.01, 1), (0.99, 19)])
def test_a_given_ratio_is_kept(tree: Path, ratio: float, images: int) -> None:
    assert len(ready(tree, val_split_ratio=ratio).val_data) == images


def test_same_as_test_on_request_with_a_warning(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    datamodule = ready(tree, val_split_mode="same_as_test")
    assert datamodule.val_split_mode is ValSplitMode.SAME_AS_TEST
    assert datamodule.val_data.samples.equals(datamodule.test_data.samples)
    assert len(datamodule.train_data) == 20
    assert "thresholds fitted in validation have seen the test labels" in caplog.text


def test_from_test_keeps_patients_together(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tree / "test" / "good", ["p30_0.png", "p31_0.png", "p31_1.png"])
    datamodule = ready(tree, val_split_mode="from_test", patient_pattern=r"p\d+")
    assert patients(datamodule.val_data) | patients(datamodule.test_data) == {"p20", "p21", "p30", "p31"}
    assert not patients(datamodule.val_data) & patients(datamodule.test_data)
    assert datamodule.val_data.has_anomalous
    assert datamodule.test_data.has_anomalous
    assert "have seen labelled anomalies" in caplog.text


def test_test_with_normals_only(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "test" / "tumour").rename(tree.parent / "aside")
    datamodule = ready(tree)
    assert datamodule.task == TaskType.CLASSIFICATION
    assert len(datamodule.test_data) == 2
    assert next(iter(datamodule.test_dataloader())).gt_mask is None
    assert "The test set has no abnormal images" in caplog.text
    assert "2 masks in ground_truth/ belong to no image" in caplog.text


def test_test_without_normals_takes_none_from_training(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "test" / "good").rename(tree.parent / "aside")
    datamodule = ready(tree)
    assert set(datamodule.test_data.samples.label_index) == {1}
    assert len(datamodule.train_data) + len(datamodule.val_data) == 20
    assert "The test set has no normal images" in caplog.text


def test_without_test_folder_training_works_and_testing_says_why(tree: Path) -> None:
    (tree / "test").rename(tree.parent / "aside")
    datamodule = ready(tree)
    assert len(next(iter(datamodule.train_dataloader()))) == 16
    assert len(next(iter(datamodule.val_dataloader()))) == 4
    for load in (datamodule.test_dataloader, datamodule.predict_dataloader):
        with pytest.raises(ValueError, match=r"needs test images, and scans has none.*anomalib predict --data"):
            load()
    with pytest.raises(ValueError, match="val_split_mode=same_as_test needs test images"):
        ready(tree, val_split_mode="same_as_test")


def test_no_masks_at_all_is_classification(tree: Path) -> None:
    (tree / "ground_truth").rename(tree.parent / "aside")
    datamodule = ready(tree)
    assert datamodule.task == TaskType.CLASSIFICATION
    assert {batch.gt_mask for batch in datamodule.test_dataloader()} == {None}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_missing_masks_lose_no_other_mask(tree: Path, batch_size: int, caplog: pytest.LogCaptureFixture) -> None:
    fill(tree / "test" / "tumour", ["a.png", "p20_5.png"])
    datamodule = ready(tree, eval_batch_size=batch_size)
    assert "2 of 4 abnormal images have no mask" in caplog.text
    batches = list(datamodule.test_dataloader())
    assert len(datamodule.test_dataloader()) == len(batches)
    masked = [batch for batch in batches if batch.gt_mask is not None]
    assert sum(len(batch) for batch in batches) == 6
    assert sum(len(batch) for batch in masked) == 4
    assert sum(int(batch.gt_mask.flatten(1).any(dim=1).sum()) for batch in masked) == 2


def test_a_mixed_batch_does_not_crash_a_plain_dataloader(tree: Path) -> None:
    put(tree / "test" / "tumour" / "a.png")
    data = ready(tree).test_data
    batch = data.collate_fn([data[index] for index in range(len(data))])
    assert batch.gt_mask is None
    assert len(batch) == 5


def test_mask_of_another_size(tree: Path) -> None:
    put(tree / "ground_truth" / "tumour" / "p20_1.png", value=255, size=(16, 16))
    with pytest.raises(ImageReadError, match=r"ground_truth.*p20_1\.png has 16x16 .* image .*test.*p20_1\.png has 8x8"):
        MedicalFolder(tree, num_workers=0).setup()


def test_damaged_image_is_named(tree: Path) -> None:
    (tree / "train" / "good" / "p00_0.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match=r"p00_0\.png: found an empty file"):
        ready(tree)


@pytest.mark.parametrize("name", ["normal", "Good", "unlabeled"])
def test_a_class_that_sounds_normal_is_refused(tree: Path, name: str) -> None:
    put(tree / "test" / name / "a.png")
    with pytest.raises(ValueError, match=rf"The class folder .*{name} has a name that does not say abnormal"):
        ready(tree)


def test_masks_that_are_not_clear_are_refused(tree: Path) -> None:
    put(tree / "ground_truth" / "tumour" / "p20_1_mask.png", value=255)
    with pytest.raises(ValueError, match=r"p20_1\.png and .*p20_1_mask\.png are both masks of p20_1"):
        ready(tree)
    (tree / "ground_truth" / "tumour" / "p20_1_mask.png").unlink()
    put(tree / "test" / "tumour" / "p20_1.bmp")
    with pytest.raises(ValueError, match=r"the mask .*p20_1\.png belongs to both .*p20_1\.bmp and .*p20_1\.png"):
        ready(tree)


def test_all_unreadable_files_are_named_at_once(tree: Path) -> None:
    for index in range(7):
        (tree / "train" / "good" / f"p0{index}_0.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match=r"7 of 24 files cannot be used:\n- .*p00_0\.png") as error:
        ready(tree)
    assert str(error.value).count("an empty file") == 5
    assert "(and 2 more)" in str(error.value)


def test_truncated_image_is_named(tree: Path) -> None:
    path = tree / "train" / "good" / "p00_0.png"
    path.write_bytes(path.read_bytes()[:-30])
    datamodule = ready(tree, val_split_ratio=0.01, train_batch_size=20)
    with pytest.raises(ImageReadError, match=r"p00_0\.png: found a damaged"):
        list(datamodule.train_dataloader()) + list(datamodule.val_dataloader())


def test_one_training_image(tmp_path: Path) -> None:
    put(tmp_path / "train" / "good" / "a.png")
    with pytest.raises(ValueError, match=r"Only 1 training image in all.*Add normal images.*same_as_test"):
        MedicalFolder(tmp_path).setup()
    put(tmp_path / "test" / "good" / "b.png")
    put(tmp_path / "test" / "bad" / "b.png")
    assert len(ready(tmp_path, val_split_mode="same_as_test").train_data) == 1


def test_one_training_patient(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"Only 20 training images of one patient"):
        MedicalFolder(tree, patient_pattern="p").setup()


def test_two_training_images(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "good", ["a.png", "b.png"])
    datamodule = ready(tmp_path)
    assert (len(datamodule.train_data), len(datamodule.val_data)) == (1, 1)


def test_missing_empty_and_wrong_folders(tmp_path: Path) -> None:
    absent, empty, wrong = tmp_path / "absent", tmp_path / "empty", tmp_path / "wrong"
    empty.mkdir()
    put(wrong / "train" / "sick" / "a.png")
    for root, message in (
        (absent, f"There is no folder {absent}."),
        (empty, f"The folder {empty} is empty."),
        (wrong, f"No normal images in {wrong / 'train' / 'good'} ({wrong} holds: train)."),
    ):
        with pytest.raises(FileNotFoundError, match=re.escape(message)) as error:
            MedicalFolder(root).setup()
        assert "<root>/train/good/*" in str(error.value)


def test_names_that_are_not_ascii_or_very_long(tmp_path: Path) -> None:
    root = tmp_path / "Ärzte 脳"
    names = ["größe.png", "x" * 240 + ".png", "a b.PNG"]
    fill(root / "train" / "good", names)
    fill(root / "test" / "Läsion", names)
    fill(root / "ground_truth" / "Läsion", names, value=255)
    datamodule = ready(root, val_split_ratio=0.4)
    assert len(datamodule.train_data) == 2
    assert next(iter(datamodule.test_dataloader())).gt_mask.all()


def test_subfolders_and_stray_files(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "good", ["p1/a.png", "p2/a.png", "._b.png", ".hidden.png"])
    fill(tmp_path / "test" / "bad", ["p3/a.jpg", "p4/a.jpg"])
    put(tmp_path / "ground_truth" / "bad" / "p4" / "a.png", value=255)
    (tmp_path / "train" / "good" / "Thumbs.db").write_bytes(b"x")
    samples = make_medical_folder_dataset(tmp_path)
    assert list(samples.split) == ["train", "train", "test", "test"]
    assert [bool(path) for path in samples.mask_path] == [False, False, False, True]


def test_pattern_that_misses_files(tree: Path) -> None:
    put(tree / "train" / "good" / "scan.png")
    with pytest.raises(ValueError, match=r"finds no patient in 1 of 25 file names, such as .*scan\.png"):
        MedicalFolder(tree, patient_pattern=r"p\d+").setup()


def test_pattern_that_is_none(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"patient_pattern='\(p' is not a regular expression"):
        MedicalFolder(tree, patient_pattern="(p")


@pytest.mark.parametrize(
    ("argument", "message"),
    [({"val_split_mode": "none"}, "expected one of from_train"), ({"val_split_ratio": 1.5}, "a share between 0 and 1")],
)
def test_bad_arguments(tree: Path, argument: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MedicalFolder(tree, **argument)


def test_a_patient_on_both_sides_is_reported_as_a_count(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tree / "test" / "good" / "p03_9.png")
    with caplog.at_level(logging.INFO):
        ready(tree, patient_pattern=r"p\d+")
    assert "LEAK: 1 patient has images in train and in test" in caplog.text
    assert "p03" not in caplog.text


def test_setup_reports_once_and_is_repeatable(tree: Path) -> None:
    datamodule = ready(tree)
    before = datamodule.val_data.samples
    datamodule.setup("test")
    assert datamodule.val_data.samples.equals(before)
    assert len(datamodule.train_data) == 16


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # Memory of the loading processes is saved where it changes nothing.
        ([Resize((16, 24)), CenterCrop(8)], [Resize]),
        ([Grayscale(3), Resize((16, 24))], [Resize]),
        ([SquarePad(), Resize((16, 16))], []),
        ([CenterCrop(8), Resize((16, 16))], []),
    ],
)
def test_images_are_not_resized_ahead_of_a_models_crop_or_padding(tree: Path, steps: list, expected: list) -> None:
    mine = Identity()
    datamodule = MedicalFolder(tree, num_workers=0, test_augmentations=mine)
    model = SimpleNamespace(pre_processor=PreProcessor(Compose(steps)))
    datamodule.trainer = SimpleNamespace(model=model, callbacks=[])
    datamodule.setup()
    for data, given in ((datamodule.train_data, None), (datamodule.val_data, None), (datamodule.test_data, mine)):
        found = data.augmentations
        parts = found.transforms if isinstance(found, Compose) else [] if found is None else [found]
        assert [type(part) for part in parts] == ([] if given is None else [Identity]) + expected


def test_which_images_are_of_one_series(tmp_path):
    """Slices of a DICOM series, of a volume, and of pictures those of a patient that somebody names."""
    good = tmp_path / "train" / "good"
    for index, series in enumerate("112"):
        uids = {"SeriesInstanceUID": f"1.2.{series}", "SOPInstanceUID": f"1.2.3.{index}", "PatientID": "4711"}
        write_dicom(good / f"p0_{index}.dcm", np.zeros((8, 8), np.uint8), **uids)
    save_nifti(good / "p1_0.nii", np.zeros((4, 4, 2), np.int16))
    for name in ("p2_a", "p2_b", "p3_a"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(good / f"{name}.png")

    def series(**kwargs):
        samples = make_medical_folder_dataset(tmp_path, **kwargs)
        assert "4711" not in "".join(samples.series_id)
        return {Path(path).name: series for path, series in zip(samples.image_path, samples.series_id, strict=True)}

    found = series()
    assert found["p0_0.dcm"] == found["p0_1.dcm"] != found["p0_2.dcm"]
    assert found["p1_0.nii#axial=0"] == found["p1_0.nii#axial=1"] == str(good / "p1_0.nii")
    assert {found[f"{name}.png"] for name in ("p2_a", "p2_b", "p3_a")} == {""}
    named = series(patient_pattern=r"^(p\d)")
    assert named["p2_a.png"] == named["p2_b.png"] != named["p3_a.png"]
    assert {name: named[name] for name in found if "png" not in name} == {
        name: found[name] for name in found if "png" not in name
    }
