"""What `clean` drops, and what it keeps."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import DataFrame

from anomalib_medical.data import clean
from anomalib_medical.data.clean import drop_leaks, merge_copies

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["train", "unlabeled", "val", "test"]),
        st.booleans(),
        st.sampled_from("pqrst"),
        st.integers(0, 5),
    ),
    max_size=30,
)


def table(rows: list[tuple[str, bool, str, int]]) -> DataFrame:
    columns = ["split", "label_index", "patient_id", "copies"]
    samples = DataFrame([(split, int(ill), patient, copy) for split, ill, patient, copy in rows], columns=columns)
    return samples.assign(image_path=[f"/x/{number}.png" for number in range(len(rows))])


def merged(samples: DataFrame, monkeypatch: pytest.MonkeyPatch) -> DataFrame:
    numbers = {number: index for index, number in enumerate(dict.fromkeys(samples.copies))}
    monkeypatch.setattr(
        "anomalib_medical.data.duplicates.group_duplicates", lambda _: [numbers[copy] for copy in samples.copies]
    )
    patients, copies = merge_copies(samples)
    return samples.assign(patient_id=patients, copies=copies)


@given(ROWS)
def test_no_patient_and_no_copy_of_the_test_is_left_elsewhere(rows: list[tuple[str, bool, str, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        samples = merged(table(rows), monkeypatch)
    kept = drop_leaks(samples, samples.copies.tolist(), "X")
    tested, others = kept[kept.split == "test"], kept[kept.split != "test"]
    for column in ("patient_id", "copies"):
        assert not set(tested[column]) & set(others[column])
    assert not kept.duplicated(["split", "copies", "label_index"]).any()
    assert not others.duplicated(["split", "copies"]).any()
    learned, validated = others[others.split != "val"], others[others.split == "val"]
    assert not learned.duplicated("copies").any()
    assert not set(validated.patient_id) & set(learned.patient_id)
    # The pool loses what is known, and training nothing for the pool's sake.
    train = samples[(samples.split == "train") & ~samples.patient_id.isin([*tested.patient_id, *validated.patient_id])]
    assert set(learned[learned.split == "train"].copies) == set(train.copies)
    # The test loses copies only.
    assert set(tested.copies) == set(samples[samples.split == "test"].copies)


def test_patients_who_share_copies_are_one_through_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = table(
        [("train", False, "c", 1), ("train", False, "b", 1), ("train", False, "b", 2), ("test", False, "a", 2)]
    )
    assert merged(samples, monkeypatch).patient_id.tolist() == ["a"] * 4


def test_counts_are_logged_and_no_patient(caplog: pytest.LogCaptureFixture) -> None:
    rows = [("train", False, "secret", 0), ("unlabeled", True, "secret", 1), ("test", True, "secret", 2)]
    rows += [("train", False, "q", 3), ("train", False, "q", 3), ("test", False, "r", 4), ("test", True, "r", 4)]
    samples = table(rows)
    with caplog.at_level(logging.INFO):
        kept = drop_leaks(samples, samples.copies.tolist(), "X")
    assert kept.image_path.tolist() == [f"/x/{number}.png" for number in (2, 3, 5, 6)]
    assert [record.getMessage() for record in caplog.records] == [
        "X: dropped 1 of 3 images from train, whose patient or copy has images in the test.",
        "X: dropped 1 of 3 images from train, copies of others in it.",
        "X: dropped 1 of 1 image from unlabeled, whose patient or copy has images in the test.",
    ]


def test_the_log_names_validation_and_pool(caplog: pytest.LogCaptureFixture) -> None:
    samples = table(
        [("unlabeled", False, "p", 0), ("train", False, "p", 0), ("train", False, "q", 1), ("val", False, "q", 2)]
    )
    with caplog.at_level(logging.INFO):
        drop_leaks(samples, samples.copies.tolist(), "X")
    assert [record.getMessage() for record in caplog.records] == [
        "X: dropped 1 of 2 images from train, whose patient or copy has images in the test or the validation.",
        "X: dropped 1 of 1 image from unlabeled, copies of others in it or in train.",
    ]


def test_without_deduplication_copies_stay() -> None:
    samples = table([("train", False, "p", 0), ("train", False, "p", 0), ("test", False, "q", 0)])
    assert len(drop_leaks(samples, None, "X")) == 3


def test_labels_of_the_pool_decide_nothing() -> None:
    def kept(poison: bool) -> list[str]:
        samples = table([("unlabeled", poison, "p", 0), ("unlabeled", False, "q", 0), ("test", False, "r", 1)])
        return drop_leaks(samples, samples.copies.tolist(), "X").image_path.tolist()

    assert kept(poison=True) == kept(poison=False)


def test_real_copies_are_found(tmp_path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in "abc":
        noise = Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        noise.save(tmp_path / f"{name}.png")
    Image.open(tmp_path / "a.png").save(tmp_path / "copy.jpg", quality=90)
    samples = DataFrame({"image_path": [str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "copy.jpg")]})
    patients, copies = clean.merge_copies(samples.assign(patient_id=["1", "2", "3", "4"]))
    assert patients == ["1", "2", "3", "1"]
    assert copies[0] == copies[3]
    assert len(set(copies)) == 3
