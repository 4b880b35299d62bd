"""Masks of a user's data set: where they lie, which of their labels count, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from anomalib_medical.data import FewShotTasks, MedicalFolder, make_medical_folder_dataset
from anomalib_medical.io import ImageReadError, MaskRule, Slicing
from tests.helpers.dicom_files import write_dicom
from tests.helpers.nifti_files import AXES, save_nifti, stored_as

SHAPE = (7, 9, 5)
AFFINE = np.array([[2.0, 0, 0, -30], [0, 1.5, 0, 12], [0, 0, 3, -40], [0, 0, 0, 1]])
# An organ in the slices 0 to 3, with a tumour in the slices 1 and 2.
ORGAN = np.zeros(SHAPE, np.uint8)
ORGAN[1:6, 2:8, :4] = 1
ORGAN[2:4, 4:7, 1:3] = 2


def volume(path: Path, voxels: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_nifti(path, voxels, affine)


def normals(root: Path) -> Path:
    for name in ("train/good/n0", "train/good/n1", "test/good/n2"):
        volume(root / f"{name}.nii", np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three normal volumes and one with an organ and a tumour, which are bright."""
    volume(normals(tmp_path) / "test/tumour/a.nii", ORGAN.astype(np.int16) * 100)
    volume(tmp_path / "ground_truth/tumour/a.nii", ORGAN)
    return tmp_path


def abnormal(root: Path, axis: str = "axial", **rule) -> list[int]:
    table = make_medical_folder_dataset(root, slicing=Slicing(axis), mask_rule=MaskRule(**rule))
    return sorted(int(path.rpartition("=")[2]) for path in table[table.label_index == 1].image_path)


def test_a_chosen_label_decides_which_slices_are_abnormal(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert abnormal(root) == [0, 1, 2, 3]
    assert "The masks hold several values (1, 2): all but 0 count as abnormal. Choose with mask_labels" in caplog.text
    caplog.clear()
    assert abnormal(root, labels=(2,)) == [1, 2]
    assert abnormal(root, labels=(1, 2)) == [0, 1, 2, 3]
    assert abnormal(root, threshold=1.5) == [1, 2]
    assert "several values" not in caplog.text


def test_the_datamodule_reads_the_chosen_label(root: Path) -> None:
    data = MedicalFolder(root, num_workers=0, mask_labels=[2], window=(100, 200))
    data.setup()
    items = [item for item in data.test_data if item.gt_label]
    assert [int(item.gt_mask.sum()) for item in items] == [6, 6]
    assert all(np.array_equal(item.gt_mask, item.image[0] == 1) for item in items)
    data = MedicalFolder(root, num_workers=0, mask_threshold=0.5)
    data.setup()
    assert sum(int(item.gt_mask.sum()) for item in data.test_data if item.gt_label) == (ORGAN > 0).sum()


def test_few_shot_tasks_read_the_chosen_label(root: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    (tasks / "brain").mkdir(parents=True)
    for part in ("train", "test", "ground_truth"):
        (root / part).rename(tasks / "brain" / part)
    normals(tasks / "liver")
    for support in (False, True):
        if support:
            (tasks / "brain/train/good").rename(tasks / "brain/support")
            (tasks / "brain/train").rmdir()
        data = FewShotTasks("brain", root=tasks, shots=1, num_workers=0, mask_labels=[2])
        data.setup()
        assert [int(item.gt_mask.sum()) for item in data.test_data if item.gt_label] == [6, 6]
    with pytest.raises(ValueError, match="give them to each of the given tasks"):
        FewShotTasks("brain", tasks=[MedicalFolder(tasks / "liver")], mask_labels=[2])


def test_labels_that_no_mask_holds(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="mask_labels names 3, which no mask holds: they hold 1, 2"):
        abnormal(root, labels=(3,))
    assert abnormal(root, labels=(2, 3)) == [1, 2]
    assert "mask_labels names 3, which no mask holds" in caplog.text


def test_a_picture_without_the_chosen_label_is_normal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a slice would be: exports of volumes keep slices that show the organ only."""
    for index, name in enumerate(("train/good/a", "train/good/b", "test/tumour/c", "test/tumour/d")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 50 + index, np.uint8)).save(tmp_path / f"{name}.png")
    for name, label in (("c", 1), ("d", 2)):
        path = tmp_path / "ground_truth/tumour" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), label, np.uint8)).save(path)
    assert dict(make_medical_folder_dataset(tmp_path).label.value_counts()) == {"good": 2, "tumour": 2}
    assert "several values (1, 2)" in caplog.text
    table = make_medical_folder_dataset(tmp_path, mask_rule=MaskRule(labels=(2,)))
    assert [Path(path).stem for path in table[table.label_index == 1].image_path] == ["d"]
    assert "Masks of 1 image of abnormal classes, such as" in caplog.text


def test_a_volume_whose_mask_is_empty_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All of its slices become normal, whatever its folder says."""
    volume(root / "test/tumour/b.nii", ORGAN.astype(np.int16) * 100)
    volume(root / "ground_truth/tumour/b.nii", np.full(SHAPE, np.nan, np.float32))
    assert abnormal(root, labels=(2,)) == [1, 2]
    told = "hold nothing that counts: all of it counts as normal"
    assert f"Masks of 1 image of abnormal classes, such as {root / 'test/tumour/b.nii'}, {told}" in caplog.text


def test_one_value_is_one_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume(normals(tmp_path) / "test/tumour/a.nii", ORGAN.astype(np.int16))
    volume(tmp_path / "ground_truth/tumour/a.nii", (ORGAN > 0).astype(np.uint8) * np.uint8(255))
    assert abnormal(tmp_path) == [0, 1, 2, 3]
    assert "several values" not in caplog.text


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("axis", AXES)
def test_masks_lie_over_their_lesions_in_any_orientation(root: Path, codes: str, axis: str) -> None:
    volume(root / "ground_truth/tumour/a.nii", *stored_as(codes, ORGAN, AFFINE))
    data = MedicalFolder(root, num_workers=0, axis=axis, slice_range=(0.2, 0.9), window=(50, 100), mask_labels=[1, 2])
    data.setup()
    items = [item for item in data.test_data if "/tumour/" in item.image_path]
    assert any(item.gt_label for item in items)
    assert all(np.array_equal(item.gt_mask, item.image[0] == 1) for item in items)


def test_another_grid_is_resampled_and_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ [1, 2, 0]
    volume(root / "ground_truth/tumour/a.nii", *stored_as("PIR", ORGAN[1:, 2:, :4], affine))
    data = MedicalFolder(root, num_workers=0, window=(100, 200), mask_labels=[2])
    data.setup()
    assert "1 mask volume has another grid than the image, such as" in caplog.text
    items = [item for item in data.test_data if item.gt_label]
    assert len(items) == 2
    assert all(np.array_equal(item.gt_mask, item.image[0] == 1) for item in items)


def test_a_mask_that_falls_between_its_images_slices_is_refused(root: Path) -> None:
    """A lesion in one thin slice, between the middles of two thick ones: all slices would become normal."""
    thin = np.zeros((7, 9, 15), np.uint8)
    thin[2, 3, 6] = 1
    affine = AFFINE @ np.diag([1, 1, 1 / 3, 1])
    affine[2, 3] -= 1
    mask = volume(root / "ground_truth/tumour/a.nii", thin, affine)
    with pytest.raises(ImageReadError, match=r"Nothing of the mask .* lies in its image .* though it is not empty"):
        abnormal(root)
    thin[2, 3, 7] = 1
    volume(mask, thin, affine)
    assert abnormal(root) == [2]


def manifest(root: Path, *rows: str) -> Path:
    path = root / "list.csv"
    path.write_text("\n".join(("path,label,mask,split", *rows)))
    return path


def test_a_listed_slice_finds_its_slice_of_the_mask(root: Path) -> None:
    normal, bad = "train/good/n0.nii,normal,,train", "test/tumour/a.nii#axial=2,abnormal,ground_truth/tumour/a.nii"
    rule = MaskRule(labels=(2,))
    for mask in ("", "#axial=2"):
        table = make_medical_folder_dataset(root, manifest=manifest(root, normal, f"{bad}{mask},test"), mask_rule=rule)
        assert list(table[table.label_index == 1].mask_path) == [f"{root}/ground_truth/tumour/a.nii#axial=2"]
    with pytest.raises(ImageReadError, match=r"a\.nii#axial=1 does not lie where its image .*a\.nii#axial=2 does"):
        make_medical_folder_dataset(root, manifest=manifest(root, normal, f"{bad}#axial=1,test"))


def test_volumes_and_other_formats_do_not_mix(root: Path) -> None:
    mask = root / "ground_truth/tumour/a.nii"
    mask.unlink()
    write_dicom(mask.with_suffix(".dcm"), np.moveaxis(ORGAN, -1, 0))
    with pytest.raises(ImageReadError, match=r"Only one of the mask .*a\.dcm and its image .*a\.nii is NIfTI"):
        abnormal(root)
    mask.with_suffix(".dcm").unlink()
    volume(mask, ORGAN)
    (root / "test/tumour/a.nii").unlink()
    write_dicom(root / "test/tumour/a.dcm", np.moveaxis(ORGAN, -1, 0))
    with pytest.raises(ImageReadError, match=r"Only one of the mask .*a\.nii and its image .*a\.dcm is NIfTI"):
        abnormal(root)


def test_a_picture_drawn_on_a_slice_is_its_mask(root: Path) -> None:
    Image.fromarray((ORGAN[::-1, ::-1, 2].T == 2).astype(np.uint8)).save(root / "drawn.png")
    rows = "train/good/n0.nii,normal,,train", "test/tumour/a.nii#axial=2,abnormal,drawn.png,test"
    table = make_medical_folder_dataset(root, manifest=manifest(root, *rows))
    assert list(table[table.label_index == 1].mask_path) == [str(root / "drawn.png")]


def planes(*heights: float) -> Sequence:
    """Frames at these heights."""
    items = []
    for height in heights:
        item, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, height]
        item.PlanePositionSequence = Sequence([position])
        items.append(item)
    return Sequence(items)


def shared(*axes: float) -> Sequence:
    item, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(axes)
    item.PlaneOrientationSequence = Sequence([orientation])
    return Sequence([item])


@pytest.mark.parametrize(
    ("heights", "axes", "found"),
    [
        ((0, 3, 6), (1, 0, 0, 0, 1, 0), None),
        ((6, 3, 0), (1, 0, 0, 0, 1, 0), "6 mm apart"),
        ((0, 3, 9), (1, 0, 0, 0, 1, 0), "3 mm apart"),
        ((0, 3, 6), (-1, 0, 0, 0, 1, 0), "turned"),
    ],
    ids=["the same", "reversed", "elsewhere", "mirrored"],
)
def test_dicom_frames_lie_where_their_headers_say(tmp_path: Path, heights, axes, found: str | None) -> None:
    frames = np.moveaxis(ORGAN, -1, 0)[:3]
    write_dicom(tmp_path / "train/good/n", frames)
    image = {"PerFrameFunctionalGroupsSequence": planes(0, 3, 6)}
    image["SharedFunctionalGroupsSequence"] = shared(1, 0, 0, 0, 1, 0)
    write_dicom(tmp_path / "test/tumour/a", frames, **image)
    mask = {"PerFrameFunctionalGroupsSequence": planes(*heights), "SharedFunctionalGroupsSequence": shared(*axes)}
    write_dicom(tmp_path / "ground_truth/tumour/a", frames, **mask)
    if found is None:
        assert abnormal(tmp_path, labels=(2,)) == [1, 2]
        return
    with pytest.raises(ImageReadError, match=f"does not lie where its image .* does: by their headers .* {found}"):
        abnormal(tmp_path)


def test_single_dicom_files_lie_where_their_headers_say(tmp_path: Path) -> None:
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 4]}
    write_dicom(tmp_path / "train/good/n", ORGAN[..., 0])
    write_dicom(tmp_path / "test/tumour/a", ORGAN[..., 1], **place)
    mask = tmp_path / "ground_truth/tumour/a"
    for tags in (place, {}):
        write_dicom(mask, ORGAN[..., 1], **tags)
        assert make_medical_folder_dataset(tmp_path, mask_rule=MaskRule(labels=(2,))).label_index.sum() == 1
    write_dicom(mask, ORGAN[..., 1], **place | {"ImagePositionPatient": [0, 0, 104]})
    with pytest.raises(ImageReadError, match="100 mm apart"):
        make_medical_folder_dataset(tmp_path)
