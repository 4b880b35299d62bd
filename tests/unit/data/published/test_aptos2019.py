"""APTOS 2019: the competition's training set and the prepared layout."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_medical.data import APTOS2019, make_aptos2019_dataset
from anomalib_medical.data.published import aptos2019
from anomalib_medical.data.published.dataset import PublishedCounts
from anomalib_medical.errors import MedicalError
from tests.helpers.published_trees import write_aptos2019, write_image, write_prepared

GRADES = (0, 3, 0, 0, 1, 0, 0, 4, 0, 2)
SMALL = PublishedCounts(train=4, test_normal=2, test_abnormal=4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_aptos2019(tmp_path / "aptos", GRADES)


def names(samples, part: str) -> set[str]:
    return {Path(path).stem for path in samples[samples.split == part].image_path}


def test_grade_0_is_normal(root: Path) -> None:
    samples = make_aptos2019_dataset(root)
    assert samples.label.to_list() == ["good" if grade == 0 else f"grade {grade}" for grade in GRADES]
    assert samples.label_index.to_list() == [int(grade > 0) for grade in GRADES]
    assert samples.attrs["task"] == "classification"


@pytest.mark.parametrize("protocol", ["published", "clean"])
def test_the_papers_split_of_a_complete_set(root: Path, protocol, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(aptos2019, "ABOUT", replace(aptos2019.ABOUT, counts=SMALL))
    samples = make_aptos2019_dataset(root, protocol, seed=5)
    assert PublishedCounts.of(samples) == SMALL
    # As a script does that calls random.seed(1) once and shuffles the list in train.csv's order.
    normal = [f"{number:012x}" for number, grade in enumerate(GRADES) if grade == 0]
    random.seed(1)
    random.shuffle(normal)
    assert names(samples, "train") == set(normal[:4])
    assert "could not be compared with their files" in caplog.text


def test_the_split_of_the_papers_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's shuffle must not change under us: the first of 20 names, written down once."""
    monkeypatch.setattr(
        aptos2019, "ABOUT", replace(aptos2019.ABOUT, counts=PublishedCounts(train=5, test_normal=15, test_abnormal=1))
    )
    samples = make_aptos2019_dataset(write_aptos2019(tmp_path, [0] * 20 + [1]), "published")
    assert {int(name, 16) for name in names(samples, "train")} == {5, 9, 11, 17, 19}


def test_an_incomplete_set_is_divided_anew(root: Path) -> None:
    with pytest.raises(MedicalError, match=r"complete set \(train 1000, test 805 normal \+ 1857 abnormal\)"):
        make_aptos2019_dataset(root, "published")
    splits = [names(make_aptos2019_dataset(root, seed=seed), "train") for seed in range(4)]
    samples = make_aptos2019_dataset(root)
    assert PublishedCounts.of(samples) == PublishedCounts(train=3, test_normal=3, test_abnormal=4)
    assert any(split != splits[0] for split in splits)


def test_the_order_of_rows_does_not_matter_to_clean(root: Path) -> None:
    first = make_aptos2019_dataset(root)
    header, *rows = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join([header, *reversed(rows)]))
    assert make_aptos2019_dataset(root).equals(first)


def test_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aptos2019, "ABOUT", replace(aptos2019.ABOUT, counts=SMALL))
    assert PublishedCounts.of(make_aptos2019_dataset(write_prepared(tmp_path, SMALL), "published")) == SMALL


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("00000000000b,5", r"line 12: this row has the diagnosis '5'"),
        ("00000000000b,", r"line 12: this row has the diagnosis ''"),
        ("000000000002,0", r"line 12: this row is a second row for id_code '000000000002' \(see line 4\)"),
        ("../train_images/000000000001,0", r"line 12: this row has the id_code '\.\./train_images/000000000001'"),
        ("00000000000b,0,0", r"line 12: this row has 3 cells"),
    ],
)
def test_bad_rows_are_named(root: Path, row: str, message: str) -> None:
    with (root / "train.csv").open("a") as file:
        file.write(f"{row}\n")
    with pytest.raises(MedicalError, match=message):
        make_aptos2019_dataset(root)


def test_other_columns_are_refused(root: Path) -> None:
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace("diagnosis", "level"))
    with pytest.raises(MedicalError, match=r"columns id_code, level; expected id_code, diagnosis"):
        make_aptos2019_dataset(root)


def test_missing_images_are_counted(root: Path) -> None:
    (root / "train_images" / "000000000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 10 images .* such as 000000000001\.png"):
        make_aptos2019_dataset(root)


def test_images_that_the_table_does_not_name_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(root / "train_images" / "00000000000b.png")
    assert len(make_aptos2019_dataset(root)) == 10
    assert f"Left out 1 image in {root / 'train_images'} that {root / 'train.csv'} does not name." in caplog.text


def test_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)kaggle\.com/competitions/aptos2019.*Kaggle account.*train\.csv"):
        APTOS2019(tmp_path, num_workers=0).prepare_data()
