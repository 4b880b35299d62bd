"""VinDr-CXR in its layouts, and with tables that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.data.published.vindr_cxr import make_vindr_dataset
from anomalib_medical.errors import MedicalError
from tests.helpers.chest_trees import make_prepared, make_vindr


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_vindr(tmp_path, normal=4, found=4)


def boxes_of(samples, name: str) -> list[list[float]]:
    return json.loads(samples[[Path(path).stem == name for path in samples.image_path]].boxes.item())


def test_original_layout(raw: Path) -> None:
    samples = make_vindr_dataset(raw)
    assert len(samples) == 8
    assert samples.attrs["task"] == "segmentation"
    # One reader of three sees nothing: abnormal, with the boxes of the two others.
    assert {Path(path).stem[0] for path in samples[samples.label_index == 1].image_path} == {"f"}
    assert boxes_of(samples, "f0") == [[8, 16, 16, 4], [40.5, 40, 7.5, 24]]
    assert set(samples.meta_sex) == {"F"}
    assert set(samples.label) == {"good", "finding"}


def test_original_layout_is_divided(tmp_path: Path) -> None:
    counts = PublishedCounts.of(make_vindr_dataset(make_vindr(tmp_path, normal=22, found=9)))
    assert counts == PublishedCounts(train=8, test_normal=2, test_abnormal=2, unlabeled_normal=12, unlabeled_abnormal=7)
    with pytest.raises(MedicalError, match="It comes with the prepared images"):
        make_vindr_dataset(tmp_path, "published")


def test_resized_layout(tmp_path: Path) -> None:
    root = make_vindr(tmp_path, normal=3, found=2, resized=True)
    assert boxes_of(make_vindr_dataset(root), "f1") == [[2, 8, 4, 2], [10.125, 20, 1.875, 12]]
    (root / "train_meta.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no .*train_meta\.csv, and the images are not DICOM"):
        make_vindr_dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,dim0,dim1\nf0,128,256\nf0,128,256\n", r"train_meta\.csv, line 3: this row is a second row"),
        ("image_id,dim0,dim1\nf0,0,256\n", r"train_meta\.csv, line 2: this row has a size that is not above 0"),
        ("image_id,dim0,dim1\nf0,a,256\n", r"train_meta\.csv, line 2: this row has the dim0 'a'"),
    ],
)
def test_sizes_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = make_vindr(tmp_path, normal=3, found=1, resized=True)
    (root / "train_meta.csv").write_text(text)
    with pytest.raises(MedicalError, match=message):
        make_vindr_dataset(root)


def test_a_size_that_is_missing(tmp_path: Path) -> None:
    root = make_vindr(tmp_path, normal=3, found=1, resized=True)
    (root / "train_meta.csv").write_text("image_id,dim0,dim1\nn0,128,256\n")
    with pytest.raises(FileNotFoundError, match=r"train_meta\.csv lacks the image f0, which has boxes"):
        make_vindr_dataset(root)


def test_physionet_layout(raw: Path) -> None:
    rows = [line.split(",") for line in (raw / "train.csv").read_text().splitlines()]
    (raw / "annotations").mkdir()
    annotations = [",".join([image, name, *rest]) for image, name, _, *rest in rows]
    (raw / "annotations" / "annotations_train.csv").write_text("\n".join(annotations))
    kaggle = make_vindr_dataset(raw)
    (raw / "train.csv").unlink()
    assert make_vindr_dataset(raw).equals(kaggle)
    # A disease of the whole image has no box.
    labels = ["image_id,rad_id,Tuberculosis,No finding"]
    labels += [f"{image},{reader},0,{int(image[0] == 'n')}" for image in ("n0", "n1", "f0") for reader in range(2)]
    (raw / "annotations" / "image_labels_train.csv").write_text("\n".join([*labels, "n0,2,1,0"]))
    samples = make_vindr_dataset(raw)
    abnormal = samples[samples.label_index == 1]
    assert {Path(path).stem for path in abnormal.image_path} == {"n0", "f0", "f1", "f2", "f3"}
    assert (abnormal.boxes == "").sum() == 1


def test_prepared_layout_and_its_boxes(tmp_path: Path) -> None:
    root = make_prepared(tmp_path)
    assert make_vindr_dataset(root).attrs["task"] == "classification"
    (root / "train.csv").write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "test_1_0,Nodule/Mass,8,R1,64,64,128,96\nunlabeled_1_0,Nodule/Mass,8,R1,64,64,128,96\n"
    )
    (root / "train_meta.csv").write_text("image_id,dim0,dim1\ntest_1_0,128,256\nunlabeled_1_0,128,256\n")
    samples = make_vindr_dataset(root)
    assert [Path(path).stem for path in samples[samples.boxes != ""].image_path] == ["test_1_0"]
    assert boxes_of(samples, "test_1_0") == [[16, 32, 16, 16]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rad_id", "reader"), r"Missing: rad_id\. Unknown: reader\."),
        (("n0,No finding,14", "n0,No finding,15"), r"train\.csv, line 2: this row has the class_id '15'"),
        (
            ("n0,No finding,14", "n0,No finding,3"),
            r"line 2: this row has the class_id 3 with the class_name 'No finding'",
        ),
        (("Cardiomegaly,3", "Cardiomegaly,14"), r"has the class_id 14 with the class_name 'Cardiomegaly'"),
        (("8,16,24,20", "8,16,8,20"), "has a box without area; expected x_min below x_max"),
        (("8,16,24,20", "8,16,,20"), "has the x_max ''; expected a number"),
    ],
)
def test_tables_that_are_refused(raw: Path, change: tuple[str, str], message: str) -> None:
    text = (raw / "train.csv").read_text()
    assert change[0] in text
    (raw / "train.csv").write_text(text.replace(*change, 1))
    with pytest.raises(MedicalError, match=message):
        make_vindr_dataset(raw)


def test_absent_images_are_counted(raw: Path) -> None:
    (raw / "train" / "f2.dicom").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 8 images that it lists is not in .*train, such as f2\.dicom"):
        make_vindr_dataset(raw)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder is empty\.\nSource: https://physionet\.org"):
        make_vindr_dataset(tmp_path)
