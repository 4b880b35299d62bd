"""ISIC 2018, task 3: the challenge's folders and the prepared layout."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_medical.data import ISIC2018, make_isic2018_dataset
from anomalib_medical.data.published import isic2018
from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.errors import MedicalError
from tests.helpers.file_server import serve
from tests.helpers.published_trees import write_isic2018, write_prepared

TRUTH = "ISIC2018_Task3_Training_GroundTruth"
LESIONS = "ISIC2018_Task3_Training_LesionGroupings.csv"
SMALL = PublishedCounts(train=6, test_normal=2, test_abnormal=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_isic2018(tmp_path / "isic")


def add_row(file: Path, row: str) -> None:
    with file.open("a") as stream:
        stream.write(f"{row}\n")


def test_nevi_are_normal_and_other_training_images_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    samples = make_isic2018_dataset(root)
    assert samples.label.to_list() == ["good", "good", "MEL", "VASC"] + ["good"] * 6
    assert samples.label_index.to_list() == [0, 0, 1, 1] + [0] * 6
    assert samples.split.to_list() == ["test"] * 4 + ["train"] * 6
    assert samples.attrs["task"] == "classification"
    assert "left out 2 training images that show no nevus" in caplog.text


def test_a_lesion_is_a_patient(root: Path) -> None:
    samples = make_isic2018_dataset(root)
    assert samples[samples.split == "train"].patient_id.to_list() == [f"HAM_{number // 2:07d}" for number in range(6)]
    data = ISIC2018(root, num_workers=0)
    data.setup()
    assert not set(data.train_data.samples.patient_id) & set(data.val_data.samples.patient_id)
    assert len(data.val_data) == 2


def test_without_the_lesions_a_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / LESIONS).unlink()
    assert make_isic2018_dataset(root).patient_id.is_unique
    assert f"without {LESIONS}" in caplog.text


def test_images_without_a_lesion_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = (root / LESIONS).read_text().splitlines()
    (root / LESIONS).write_text("\n".join(line for line in lines if "ISIC_0000001" not in line))
    samples = make_isic2018_dataset(root)
    assert samples[samples.split == "train"].patient_id.nunique() == 4
    assert "1 training image is not in" in caplog.text


def test_published(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MedicalError, match=r"found train 6, test 2 .*; the papers have train 6705, test 909 .* 603"):
        make_isic2018_dataset(root, "published")
    monkeypatch.setattr(isic2018, "ABOUT", replace(isic2018.ABOUT, counts=SMALL))
    assert PublishedCounts.of(make_isic2018_dataset(root, "published")) == SMALL


def test_tables_in_folders_of_their_name(root: Path) -> None:
    first = make_isic2018_dataset(root)
    for part in ("Training", "Test"):
        name = f"ISIC2018_Task3_{part}_GroundTruth"
        (root / name).mkdir()
        (root / f"{name}.csv").rename(root / name / f"{name}.csv")
    assert make_isic2018_dataset(root).equals(first)


def test_prepared_with_lesions(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "prepared", SMALL, ".jpg")
    lesions = [f"train_{number},HAM_{number // 3}" for number in range(6)]
    (prepared / LESIONS).write_text("\n".join(["image,lesion_id", *lesions]))
    samples = make_isic2018_dataset(prepared)
    assert PublishedCounts.of(samples) == SMALL
    assert set(samples[samples.split == "train"].patient_id) == {"HAM_0", "HAM_1"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ISIC_0000100,0,1,0,0,1,0,0", r"line 10: this row has NV 1, BKL 1; expected 1 for one diagnosis"),
        ("ISIC_0000100,0,0,0,0,0,0,0", r"line 10: this row has only zeros"),
        ("ISIC_0000100,0,0.5,0,0,0.5,0,0", r"line 10: this row has NV 0\.5, BKL 0\.5"),
        ("ISIC_0000100,1,1,-1,0,0,0,0", r"line 10: this row has MEL 1, NV 1, BCC -1"),
        ("ISIC_0000100,0,1,-1,1,0,0,0", r"line 10: this row has NV 1, BCC -1, AKIEC 1"),
        ("ISIC_0000100,0,1,0.5,-0.5,0,0,0", r"line 10: this row has NV 1, BCC 0\.5, AKIEC -0\.5"),
        ("ISIC_0000100,0,yes,0,0,0,0,0", r"line 10: this row has the NV 'yes'; expected a number"),
        ("ISIC_0000003,0,1,0,0,0,0,0", r"line 10: this row is a second row for image 'ISIC_0000003' \(see line 5\)"),
        ("../isic/x,0,1,0,0,0,0,0", r"line 10: this row has the image '\.\./isic/x'"),
    ],
)
def test_bad_rows_are_named(root: Path, row: str, message: str) -> None:
    add_row(root / f"{TRUTH}.csv", row)
    if "0000100" in row:
        shutil.copy(
            root / "ISIC2018_Task3_Training_Input" / "ISIC_0000000.jpg",
            root / "ISIC2018_Task3_Training_Input" / "ISIC_0000100.jpg",
        )
    with pytest.raises(MedicalError, match=message):
        make_isic2018_dataset(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ISIC_0000002,HAM_9,x", r"line 10: this row is a second row for image 'ISIC_0000002'"),
        ("ISIC_0000200,,x", r"line 10: this row has no lesion_id"),
    ],
)
def test_bad_lesions_are_named(root: Path, row: str, message: str) -> None:
    add_row(root / LESIONS, row)
    with pytest.raises(MedicalError, match=message):
        make_isic2018_dataset(root)


def test_a_table_of_another_year_is_refused(root: Path) -> None:
    file = root / f"{TRUTH}.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f"{header},SCC", *(f"{row},0.0" for row in rows)]))
    with pytest.raises(MedicalError, match=r"Unknown: SCC"):
        make_isic2018_dataset(root)


def test_missing_images_are_counted(root: Path) -> None:
    (root / "ISIC2018_Task3_Test_Input" / "ISIC_0000009.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 images .*Test_Input, such as ISIC_0000009\.jpg"):
        make_isic2018_dataset(root)


@pytest.mark.parametrize("missing", ["ISIC2018_Task3_Test_Input", "ISIC2018_Task3_Test_GroundTruth.csv"])
def test_half_a_dataset_says_what_is_expected(root: Path, missing: str) -> None:
    (root / missing).rename(root.parent / "aside")
    with pytest.raises(FileNotFoundError, match=rf"(?s)CC BY-NC.*set download=true.*<root>/{missing}"):
        ISIC2018(root, num_workers=0).prepare_data()


def test_download(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From this machine, with archives made here: we have not seen the challenge's."""
    with serve() as server:
        for part in ("Training_Input", "Training_GroundTruth", "Test_Input", "Test_GroundTruth"):
            name = f"ISIC2018_Task3_{part}"
            packed = tmp_path / "packed" / name
            packed.mkdir(parents=True)
            content = root / name if part.endswith("Input") else root / f"{name}.csv"
            content.rename(packed / content.name)
            archive = Path(shutil.make_archive(str(packed), "zip", packed))
            server.files[f"/{archive.name}"] = archive.read_bytes()
        server.files[f"/{LESIONS}"] = (root / LESIONS).read_bytes()
        local = [replace(archive, url=f"{server.url}/{archive.name}") for archive in isic2018.ABOUT.archives]
        monkeypatch.setattr(ISIC2018, "about", replace(isic2018.ABOUT, archives=tuple(local)))
        monkeypatch.setattr(isic2018, "LESION_FILE", replace(isic2018.LESION_FILE, url=f"{server.url}/{LESIONS}"))
        data = ISIC2018(tmp_path / "new", num_workers=0, download=True)
        data.prepare_data()
        assert len(server.requests) == 5
        data.prepare_data()
        assert len(server.requests) == 5
    data.setup()
    assert (len(data.train_data), len(data.val_data), len(data.test_data)) == (4, 2, 4)
    assert data.train_data.samples.patient_id.str.startswith("HAM_").all()


def test_the_lesions_are_downloaded_where_they_are_missing_and_wanted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(isic2018, "download", lambda archive, folder: asked.append((archive.url, folder)))
    ISIC2018(root, num_workers=0, download=True).prepare_data()
    (root / LESIONS).unlink()
    ISIC2018(root, num_workers=0).prepare_data()
    assert not asked
    ISIC2018(root, num_workers=0, download=True).prepare_data()
    assert asked == [(f"https://isic-challenge-data.s3.amazonaws.com/2018/{LESIONS}", root)]
