"""Numbers in words."""

import pytest

from anomalib_medical.benchmark.wording import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "0.2 s"),
        (60, "60 s"),
        (231 * 60, "3.9 h"),
        (150, "2.5 min"),
        (36 * 3600, "36 h"),
        (22883 * 60, "15.9 days"),
    ],
)
def test_a_time_has_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words
