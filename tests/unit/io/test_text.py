"""Counts in sentences; names as text: spelled in two ways, as no text, or of nobody."""

import os
import unicodedata

import pytest

from anomalib_medical.io import agree, composed, counted, readable

NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")


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


def test_names_are_compared_in_one_spelling() -> None:
    assert composed(NFD) == composed(NFC) == NFC
    assert composed("plain_1") == "plain_1"


def test_names_that_are_no_text_become_text() -> None:
    assert readable(os.fsdecode(b"caf\xe9_\xc3\xa9.png")) == "caf\\udce9_é.png"
    assert readable("脑.png") == "脑.png"
