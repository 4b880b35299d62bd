"""Patients are never on both sides, whatever the order of the files."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anomalib_medical.data.splits import automatic_holdout, hold_out_patients

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
    with pytest.raises(ValueError, match=r"5 image\(s\) of 1 patient\(s\), at least 2 needed"):
        hold_out_patients(["a"] * 5, 1, seed=0)


@pytest.mark.parametrize(
    ("images", "held_out"),
    [(2, 1), (10, 2), (40, 8), (99, 19), (100, 20), (200, 20), (682, 68)],
)
def test_automatic_holdout(images: int, held_out: int) -> None:
    assert automatic_holdout(images) == held_out
