"""The two protocols, whatever the dataset."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame

from anomalib_medical.data.published.dataset import PublishedCounts, PublishedSet, apply_protocol
from anomalib_medical.errors import MedicalError

COUNTS = PublishedCounts(train=4, test_normal=2, test_abnormal=1, unlabeled_normal=2, unlabeled_abnormal=1)
ABOUT = PublishedSet(
    name="X",
    title="X",
    url="https://example.org",
    licence="none",
    access="none",
    tree="",
    original=(),
    counts=COUNTS,
    no_split="It is in the moon.",
)
PARTS = [("train", 0)] * 4 + [("test", 0)] * 2 + [("test", 1)] + [("unlabeled", 0)] * 2 + [("unlabeled", 1)]


def table(parts: list[tuple[str, int]] = PARTS, patients: list[str] | None = None) -> DataFrame:
    return DataFrame(
        {
            "image_path": [f"/x/{number}.png" for number in range(len(parts))],
            "split": [split for split, _ in parts],
            "label": ["tumour" if index else "good" for _, index in parts],
            "label_index": [index for _, index in parts],
            "patient_id": patients or [str(number) for number in range(len(parts))],
        }
    )


def applied(samples: DataFrame, protocol="clean", **kwargs) -> DataFrame:
    return apply_protocol(samples, ABOUT, protocol, **({"deduplicate": False, "seed": 0} | kwargs))


def test_published_is_as_it_comes() -> None:
    samples = applied(table(), "published")
    assert PublishedCounts.of(samples) == COUNTS
    assert {"mask_path", "boxes", "known_normal"} < set(samples)
    assert samples.attrs["task"] == "classification"


def test_published_says_what_is_missing() -> None:
    message = (
        r"protocol=published of X is not possible with what is on disk: found train 3, test 2 normal \+ 1 abnormal, "
        r"unlabeled 2 normal \+ 1 abnormal; the papers have train 4, .*use protocol=clean"
    )
    with pytest.raises(MedicalError, match=message):
        applied(table(PARTS[1:]), "published")


def test_published_needs_a_split() -> None:
    with pytest.raises(MedicalError, match=r"these files have no split\. It is in the moon\. Complete the data"):
        applied(table([("", index) for _, index in PARTS]), "published")


def test_published_warns_of_shared_patients_in_counts(caplog: pytest.LogCaptureFixture) -> None:
    applied(table(patients=["secret"] * 4 + ["b", "c", "secret", "d", "b", "e"]), "published")
    assert [record.getMessage() for record in caplog.records] == [
        f"LEAK: in the published split of X 1 patient has images in {part} and in test; results will flatter."
        for part in ("train", "unlabeled")
    ]


def test_clean_takes_what_is_there_and_drops_shared_patients() -> None:
    samples = applied(table(PARTS[1:], patients=["a", "b", "c", "x", "y", "a", "x", "z", "d"]))
    assert PublishedCounts.of(samples) == PublishedCounts(2, 2, 1, 1, 1)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abcdefghij")), min_size=1, max_size=40), st.integers(0, 9)
)
def test_clean_divides_by_patient_where_the_files_do_not(images: list[tuple[int, str]], seed: int) -> None:
    samples = table([("", index) for index, _ in images], [patient for _, patient in images])
    if len(set(samples.patient_id)) == 1:
        with pytest.raises(MedicalError, match=rf"one patient has all images \({len(images)}\)"):
            applied(samples, seed=seed)
        return
    made = applied(samples, seed=seed)
    assert len(made) == len(samples)
    tested = set(made[made.split == "test"].patient_id)
    assert not tested & set(made[made.split != "test"].patient_id)
    assert not made[made.split == "train"].label_index.any()
    again = applied(samples.iloc[::-1], seed=seed)
    assert again.equals(made)


def test_clean_keeps_the_papers_proportions() -> None:
    made = applied(table([("", 0)] * 80 + [("", 1)] * 20))
    assert PublishedCounts.of(made) == PublishedCounts(
        train=40, test_normal=20, test_abnormal=10, unlabeled_normal=20, unlabeled_abnormal=10
    )


def test_a_mask_or_box_makes_it_segmentation() -> None:
    for column in ("mask_path", "boxes"):
        samples = table().assign(**{column: ["x"] + [""] * 9})
        assert applied(samples).attrs["task"] == "segmentation"


def test_deduplication_is_for_clean_only(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("anomalib_medical.data.duplicates.group_duplicates", lambda paths: [0] * len(paths))
    assert len(applied(table(), "published", deduplicate=True)) == len(PARTS)
    with caplog.at_level(logging.INFO):
        assert applied(table(), deduplicate=True).split.tolist() == ["test", "test"]
    assert "X: dropped 4 of 4 images from train, whose patient or copy has images in the test." in caplog.text


def test_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="protocol is 'paper', expected one of clean, published"):
        applied(table(), "paper")
