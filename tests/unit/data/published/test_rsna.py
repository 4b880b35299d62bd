"""RSNA in both layouts, and with tables that are wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.data.published.rsna import ABOUT, make_rsna_dataset
from anomalib_medical.errors import MedicalError
from tests.helpers.chest_trees import RSNA_BOXES, RSNA_CLASSES, RSNA_FOLDER, make_prepared, make_rsna, write_mapping


@pytest.fixture(scope="module")
def raw_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write to it."""
    return make_rsna(tmp_path_factory.mktemp("rsna"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_rsna(tmp_path, normal=4, opaque=4, other=1)


def test_original_layout(raw_tree: Path) -> None:
    samples = make_rsna_dataset(raw_tree)
    assert len(samples) == 32
    assert set(samples.label) == {"good", "lung_opacity"}
    assert not any(Path(path).stem.startswith("x") for path in samples.image_path)
    assert samples.attrs["task"] == "segmentation"
    # Boxes are in pixels of 1024x1024, the images have 64.
    boxes = {path: json.loads(text) for path, text in zip(samples.image_path, samples.boxes, strict=True) if text}
    assert len(boxes) == 8
    assert boxes[str(raw_tree / RSNA_FOLDER / "o3.dcm")] == [[16, 8, 32, 16], [0, 0, 4, 4]]
    assert set(samples[samples.label_index == 0].meta_view) == {"PA"}
    assert set(samples[samples.label_index == 1].meta_view) == {"AP"}


def test_original_layout_is_divided_in_the_papers_proportions(raw_tree: Path) -> None:
    counts = PublishedCounts.of(make_rsna_dataset(raw_tree))
    assert counts == PublishedCounts(
        train=10, test_normal=3, test_abnormal=1, unlabeled_normal=11, unlabeled_abnormal=7
    )
    first, second = (set(_tested(make_rsna_dataset(raw_tree, seed=seed))) for seed in (0, 1))
    assert first != second


def _tested(samples) -> list[str]:
    return [Path(path).stem for path in samples[samples.split == "test"].image_path]


def test_original_layout_has_no_published_split(raw_tree: Path) -> None:
    with pytest.raises(MedicalError, match=r"no split\. It comes with the prepared images \(data\.json\)"):
        make_rsna_dataset(raw_tree, "published")


def test_without_a_mapping_the_log_says_so(raw_tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_rsna_dataset(raw_tree)
    assert "Patients of the test may have images in training" in caplog.text
    assert "70% do" in caplog.text


def test_with_a_mapping_patients_are_kept_apart(raw_tree: Path, tmp_path: Path, caplog) -> None:
    images = [f"n{number}" for number in range(24)] + [f"o{number}" for number in range(8)]
    mapping = write_mapping(tmp_path, {image: 1 + number % 9 for number, image in enumerate(images)})
    samples = make_rsna_dataset(raw_tree, mapping_file=mapping)
    assert set(samples.patient_id) == {f"{number:08d}" for number in range(1, 10)}
    tested = set(samples[samples.split == "test"].patient_id)
    assert tested
    assert not tested & set(samples[samples.split != "test"].patient_id)
    assert "may have images in training" not in caplog.text


@pytest.mark.parametrize("folder", ["images", "train_png_512"])
def test_prepared_layout(tmp_path: Path, folder: str) -> None:
    root = make_prepared(tmp_path, folder=folder)
    samples = make_rsna_dataset(root)
    assert PublishedCounts.of(samples) == PublishedCounts(24, 4, 4, 6, 6)
    assert samples.attrs["task"] == "classification"
    rows = [f"{part}_0,512,256,512,256,1" for part in ("test_1", "unlabeled_1")]
    (root / RSNA_BOXES).write_text("\n".join(["patientId,x,y,width,height,Target", *rows]))
    samples = make_rsna_dataset(root)
    assert samples.attrs["task"] == "segmentation"
    assert [Path(path).stem for path in samples[samples.boxes != ""].image_path] == ["test_1_0"]
    assert json.loads(samples[samples.boxes != ""].boxes.item()) == [[32, 16, 32, 16]]


def test_prepared_layout_with_mapping_and_views(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_prepared(tmp_path)
    images = sorted(path.stem for path in (root / "images").iterdir())
    patients = {image: number for number, image in enumerate(images, start=1)}
    patients |= {"test_1_0": 90, "train_3": 90, "unlabeled_0_2": 90}
    write_mapping(root, patients)
    (root / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID,View Position,OriginalImage[Width,Height],\n"
        + "".join(f"{patients[image]:08d}_{number:03d}.png,x,1,PA,9,9,\n" for number, image in enumerate(patients))
    )
    with caplog.at_level(logging.INFO):
        samples = make_rsna_dataset(root)
    assert PublishedCounts.of(samples) == PublishedCounts(23, 4, 4, 5, 6)
    assert "RSNA: dropped 1 of 24 images from train, whose patient has images in the test." in caplog.text
    assert set(samples.meta_view) == {"PA"}


def test_published_counts(tmp_path: Path) -> None:
    with pytest.raises(MedicalError, match=r"found train 24, .*; the papers have train 3851, test 1000 normal \+ 1000"):
        make_rsna_dataset(make_prepared(tmp_path), "published")
    assert str(ABOUT.counts).endswith("unlabeled 4000 normal + 5012 abnormal")


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "stage_2_train_images").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        make_rsna_dataset(tmp_path)
    for part in ("found only stage_2_train_images", "Licence:", "Kaggle", "download=true", "<root>/data.json"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (RSNA_CLASSES, ("patientId,class", "patientId,class,age"), r"Unknown: age\."),
        (RSNA_CLASSES, ("n1,Normal", "n1,Healthy"), r"class_info\.csv, line 3: this row has the class 'Healthy'"),
        (RSNA_CLASSES, ("n1,Normal", "n0,Lung Opacity"), r"line 3: this row gives n0 the class 'Lung Opacity' after"),
        (RSNA_BOXES, ("Target", "target"), r"train_labels\.csv has the columns .*Missing: Target\."),
        (RSNA_BOXES, ("n1,,,,,0", "n1,,,,,2"), r"train_labels\.csv, line 3: this row has the Target '2'"),
        (RSNA_BOXES, ("n1,,,,,0", "n1,,,,,1"), r"line 3: this row has the Target 1, while .* has the class 'Normal'"),
        (RSNA_BOXES, ("n1,,,,,0", "o0,,,,,0"), r"line 3: this row has the Target 0, while .* 'Lung Opacity'"),
        (RSNA_BOXES, ("n1,,,,,0\n", ""), r"has no row for 1 image of stage_2_detailed_class_info\.csv, such as n1"),
        (RSNA_BOXES, ("512.0,256.0,1", "0,256.0,1"), r"line 6: this row has a box without area"),
        (RSNA_BOXES, ("512.0,256.0,1", ",256.0,1"), r"line 6: this row has the width ''; expected a number"),
    ],
)
def test_tables_that_are_refused(raw: Path, file: str, change: tuple[str, str], message: str) -> None:
    text = (raw / file).read_text()
    assert change[0] in text
    (raw / file).write_text(text.replace(*change, 1))
    with pytest.raises(MedicalError, match=message):
        make_rsna_dataset(raw)


def test_rows_that_stand_twice_change_nothing(raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = make_rsna_dataset(raw)
    for file in (RSNA_BOXES, RSNA_CLASSES):
        header, *rows = (raw / file).read_text().splitlines()
        (raw / file).write_text("\n".join([header, *rows, *rows]))
    with caplog.at_level(logging.INFO):
        assert make_rsna_dataset(raw).equals(before)
    assert "8 boxes stand there twice and are taken once" in caplog.text


def test_absent_images_are_counted(raw: Path) -> None:
    (raw / RSNA_FOLDER / "n1.dcm").unlink()
    (raw / RSNA_FOLDER / "x0.dcm").unlink()  # left out anyway
    with pytest.raises(FileNotFoundError, match=r"1 of 8 images that it lists is not in .*images, such as n1\.dcm"):
        make_rsna_dataset(raw)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is not JSON text"),
        ("{}", "it is dict, not a list"),
        ('[{"subset_img_id": "n0"}]', "its entry 1 lacks a subset_img_id, or an img_id"),
        (
            '[{"subset_img_id": "n0", "img_id": "x_1.png"}]',
            "its entry 1 lacks a subset_img_id, or an img_id that starts",
        ),
        (
            '[{"subset_img_id": "n0", "img_id": "1_0.png"}, {"subset_img_id": "n0", "img_id": "2_0.png"}]',
            "its entry 2 maps an image a second time",
        ),
        ('[{"subset_img_id": "n0", "img_id": "1_0.png"}]', "lacks 7 of 8 images, such as n1"),
    ],
)
def test_mappings_that_are_refused(raw: Path, content: str, message: str) -> None:
    (raw / "map.json").write_text(content)
    with pytest.raises(MedicalError, match=message):
        make_rsna_dataset(raw, mapping_file=raw / "map.json")


def test_a_mapping_that_is_not_there(raw: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_rsna_dataset(raw, mapping_file=raw / "absent.json")
