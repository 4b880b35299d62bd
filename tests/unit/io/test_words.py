"""Counts agree with their nouns."""

import pytest

from anomalib_medical.io import agree, counted


@pytest.mark.parametrize(
    ("given", "text"),
    [((1, "image"), "1 image"), ((0, "image"), "0 images"), ((2, "study", "studies"), "2 studies")],
)
def test_a_count_and_its_noun(given, text):
    assert counted(*given) == text


def test_a_verb_and_a_fraction():
    assert [agree(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]
    assert agree(1.0, "minute", "minutes") == "minute"
    assert agree(0.2, "minute", "minutes") == "minutes"
