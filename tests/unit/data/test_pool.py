"""Unlabeled pools of a chosen size and anomaly rate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame

from anomalib_medical.data.pool import compose_pool
from anomalib_medical.errors import MedicalError


def table(normal: int, abnormal: int, folder: str = "/data") -> DataFrame:
    rows = [(f"{folder}/n{number}.png", 0, f"p{number}") for number in range(normal)]
    rows += [(f"{folder}/a{number}.png", 1, f"q{number}") for number in range(abnormal)]
    return DataFrame(rows, columns=["image_path", "label_index", "patient_id"])


@given(st.integers(0, 30), st.integers(0, 30), st.data(), st.integers(0, 3))
def test_size_and_rate_are_met_or_refused(normal: int, abnormal: int, data: st.DataObject, seed: int) -> None:
    pool = table(normal, abnormal)
    rate = data.draw(st.floats(0, 1))
    count = data.draw(st.integers(0, 40))
    wanted = round(count * rate)
    if wanted > abnormal or count - wanted > normal:
        with pytest.raises(MedicalError, match=rf"for the unlabeled pool: {normal} normal and {abnormal} abnormal"):
            compose_pool(pool, count, rate, seed)
    else:
        chosen = compose_pool(pool, count, rate, seed)
        assert (len(chosen), chosen.label_index.sum()) == (count, wanted)
        assert chosen.image_path.is_unique


@settings(max_examples=25)
@given(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1))
def test_without_a_size_the_pool_is_as_large_as_the_rate_allows(normal: int, abnormal: int, rate: float) -> None:
    pool = table(normal, abnormal)
    chosen = compose_pool(pool, None, rate, seed=0)
    assert abs(chosen.label_index.sum() - rate * len(chosen)) <= 0.5
    for larger in range(len(chosen) + 1, len(pool) + 1):
        with pytest.raises(MedicalError):
            compose_pool(pool, larger, rate, seed=0)


def test_folder_and_order_do_not_matter_and_the_seed_does() -> None:
    def names(pool: DataFrame, seed: int = 0) -> set[str]:
        return {path.rpartition("/")[2] for path in compose_pool(pool, 10, 0.5, seed).image_path}

    pool = table(50, 50)
    shuffled = pool.sample(frac=1, random_state=0)
    assert names(pool) == names(shuffled) == names(table(50, 50, folder="/elsewhere"))
    assert len({frozenset(names(pool, seed)) for seed in range(5)}) == 5


def test_a_smaller_pool_is_a_part_of_a_larger_one() -> None:
    pool = table(50, 50)
    small, large = (set(compose_pool(pool, count, 0.4, seed=0).image_path) for count in (10, 40))
    assert small < large


def test_size_alone_takes_what_comes() -> None:
    assert len(compose_pool(table(20, 20), 15, None, seed=0)) == 15
    with pytest.raises(MedicalError, match=r"unlabeled_count=41 needs more images"):
        compose_pool(table(20, 20), 41, None, seed=0)
