"""The audit's page: of a shortcut that was found examples of both its ends, and what can be done."""

import re

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.data.audit import write_report
from anomalib_medical.data.audit.advice import advice_on
from tests.unit.data.audit.test_audit import clean, run  # noqa: F401 - clean is a fixture


def page(report, folder, **options):
    folder.mkdir()
    write_report(report, folder, "data", **options)
    return (folder / "index.html").read_text("utf-8")


def examples(text):
    return re.findall(r'<div class="card example">.*?</p>\n</div>\n', text, re.DOTALL)


@pytest.fixture
def noisy(clean):  # noqa: F811 - the fixture
    """Abnormal images are noise, whose files are larger and which are sharper."""
    rng = np.random.default_rng(0)
    for path in clean.image_path[clean.label_index == 1]:
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    return clean


def test_a_shortcut_has_its_examples_and_what_can_be_done(noisy, tmp_path):
    report = run(noisy)
    text = page(report, tmp_path / "out")
    found = {each.split("</h3>")[0].split("<h3>")[1]: each for each in examples(text)}
    assert {"file_size", "sharpness"} <= found.keys()
    assert len(found) == len(report.findings)
    shown = found["file_size"]
    assert shown.count("data:image/jpeg;base64,") == 6
    low, high = shown.split("highest values, of different patients")
    sizes = report.samples[report.samples.split == "test"].set_index("image_path").file_size
    for part, wanted in ((low, sizes.nsmallest(3)), (high, sizes.nlargest(3))):
        paths = re.findall(r"<br>(.*?)</figcaption>", part)
        assert [sizes[path] for path in paths] == list(wanted)
        assert [int(each.replace(",", "")) for each in re.findall(r"</b> ([\d,]+)<br>", part)] == list(wanted)
    assert low.count("<b>good</b>") == high.count("<b>ill</b>") == 3
    assert advice_on("file_size") in shown
    assert "This page holds small copies of images" in text
    assert not re.search(r"https?://", text)


def test_without_a_shortcut_there_are_none(clean, tmp_path):  # noqa: F811 - the fixture
    text = page(run(clean), tmp_path / "out")
    assert examples(text) == []
    assert "What can be done" not in text
    assert "This page holds small copies" not in text


def test_neither_a_hashed_path_nor_a_value_of_metadata_is_shown(noisy, tmp_path):
    wards = ["Ward-Mustermann" if ill else f"Ward-{index % 2}" for index, ill in enumerate(noisy.label_index)]
    report = run(noisy.assign(meta_ward=wards))
    text = page(report, tmp_path / "out", hash_paths=True)
    (ward,) = (each for each in examples(text) if "<h3>meta_ward</h3>" in each)
    assert "categories of the abnormal images" in ward
    assert advice_on("meta_ward") in ward
    assert "Ward-" not in text
    assert ".png" not in text
    assert len(re.findall(r"<br>f-[0-9a-f]{12}</figcaption>", ward)) == 6


def test_examples_are_of_different_patients_and_of_one_end(clean):  # noqa: F811 - the fixture
    samples = clean[clean.split == "test"].reset_index(drop=True)
    report = run(samples.assign(meta_age=[str(age) for age in range(16)], patient_id=list("aabbccddeeffgghh")))
    (age,) = (each for each in report.shortcuts if each.name == "meta_age")
    assert (age.lowest, age.highest) == ((0, 2, 4), (15, 13, 11))
    report = run(samples.assign(meta_age=[str(age) for age in range(16)], patient_id=list("aaaaaaaabbbbbbbb")))
    (age,) = (each for each in report.shortcuts if each.name == "meta_age")
    assert (age.lowest, age.highest) == ((0,), (15,))


def test_there_is_advice_on_every_number(clean):  # noqa: F811 - the fixture
    report = run(clean.assign(meta_view="PA"))
    for name in report.samples.columns.difference(clean.columns):
        assert advice_on(name)
    assert advice_on("nearest_train_thumbnail")
    assert advice_on("meta_view absent") == advice_on("meta_view")
