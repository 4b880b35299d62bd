"""Patients are never on both sides, whatever the order of the files."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anomalib_medical.data.samples import automatic_holdout, divide_patients, hold_out_patients

PATIENTS = st.lists(st.text("abcdé", max_size=3), min_size=2, max_size=60).filter(lambda ids: len(set(ids)) > 1)


@given(PATIENTS, st.integers(1, 80), st.integers(0, 5))
def test_some_patients_and_never_all(patients: list[str], count: int, seed: int) -> None:
    held_out = hold_out_patients(patients, count, seed)
    assert held_out
    assert held_out < set(patients)


@given(PATIENTS, st.integers(1, 80), st.integers(0, 5), st.randoms(use_true_random=False))
def test_order_of_files_does_not_matter(patients: list[str], count: int, seed: int, shuffler: random.Random) -> None:
    shuffled = shuffler.sample(patients, len(patients))
    assert hold_out_patients(patients, count, seed) == hold_out_patients(shuffled, count, seed)


@given(PATIENTS, st.integers(1, 80), st.integers(0, 5))
def test_never_more_images_than_wanted_unless_each_patient_has_more(patients: list[str], count: int, seed: int) -> None:
    assume(min(patients.count(patient) for patient in patients) <= count)
    held_out = hold_out_patients(patients, count, seed)
    assert sum(patient in held_out for patient in patients) <= count


def test_single_images_are_counted_exactly_and_the_seed_matters() -> None:
    patients = [f"p{number}" for number in range(100)]
    choices = [hold_out_patients(patients, 10, seed) for seed in range(5)]
    assert all(len(choice) == 10 for choice in choices)
    assert len({frozenset(choice) for choice in choices}) == 5


def test_the_choice_is_the_same_on_every_machine() -> None:
    assert hold_out_patients([f"p{number}" for number in range(12)], 3, seed=0) == {"p11", "p2", "p9"}


def test_one_patient_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match=r"5 images of 1 patient, at least 2 needed"):
        hold_out_patients(["a"] * 5, 1, seed=0)


@pytest.mark.parametrize(
    ("images", "held_out"),
    [(2, 1), (10, 2), (40, 8), (99, 19), (100, 20), (200, 20), (682, 68)],
)
def test_automatic_holdout(images: int, held_out: int) -> None:
    assert automatic_holdout(images) == held_out


IMAGES = st.lists(st.tuples(st.text("abcdefgh", min_size=1, max_size=2), st.booleans()), min_size=1, max_size=60)
SHARES = {"test_normal_share": 0.2, "test_abnormal_share": 0.3, "unlabeled_share": 0.5}


def divided(images: list[tuple[str, bool]], seed: int, **shares: float) -> list[str]:
    patients, abnormal = zip(*images, strict=True)
    return divide_patients(patients, abnormal, **(SHARES | shares), seed=seed)


@given(IMAGES, st.integers(0, 5), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_no_patient_of_the_test_is_elsewhere(
    images: list[tuple[str, bool]], seed: int, normal: float, abnormal: float, unlabeled: float
) -> None:
    parts = divided(images, seed, test_normal_share=normal, test_abnormal_share=abnormal, unlabeled_share=unlabeled)
    patients: dict[str, set[str]] = {"train": set(), "unlabeled": set(), "test": set()}
    for (patient, is_abnormal), part in zip(images, parts, strict=True):
        patients[part].add(patient)
        assert not (part == "train" and is_abnormal)
    assert not patients["test"] & (patients["train"] | patients["unlabeled"])


@given(IMAGES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_division_does_not_depend_on_the_order_of_files(
    images: list[tuple[str, bool]], seed: int, shuffler: random.Random
) -> None:
    order = shuffler.sample(range(len(images)), len(images))
    shuffled = divided([images[index] for index in order], seed)
    assert [divided(images, seed)[index] for index in order] == shuffled


def test_patients_of_one_image_are_divided_as_asked() -> None:
    images = [(f"n{number}", False) for number in range(100)] + [(f"a{number}", True) for number in range(50)]
    parts = divided(images, seed=0)
    assert (parts[:100].count("test"), parts[100:].count("test")) == (20, 15)
    assert (parts[:100].count("train"), parts[:100].count("unlabeled")) == (40, 40)
    assert parts[100:].count("unlabeled") == 35
    assert parts != divided(images, seed=1)


def test_normals_of_ill_patients_count_for_the_test() -> None:
    images = [(f"a{number}", abnormal) for number in range(10) for abnormal in (False, True)]
    images += [(f"n{number}", False) for number in range(10)]
    parts = divided(images, seed=0, test_normal_share=0.5, test_abnormal_share=1.0)
    assert parts == ["test"] * 20 + ["train" if part == "train" else "unlabeled" for part in parts[20:]]


def test_without_a_pool_all_ill_patients_are_tested() -> None:
    images = [("a", True), ("a", False), *((f"n{number}", False) for number in range(10))]
    parts = divided(images, seed=0, test_abnormal_share=1.0, unlabeled_share=0.0)
    assert parts[:2] == ["test", "test"]
    assert set(parts[2:]) == {"train", "test"}
