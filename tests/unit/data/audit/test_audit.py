from pathlib import Path

import numpy as np
import pytest
from pandas import DataFrame
from PIL import Image
from scipy.ndimage import gaussian_filter

from anomalib_medical.data.audit import AuditLimits, audit
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Listing

COUNTS = {"train": 8, "val": 3, "test": 16}


def write(path, seed):
    noise = np.random.default_rng(seed).normal(size=(64, 64))
    pixels = sum(gaussian_filter(noise, sigma) * sigma for sigma in (2, 4, 8))
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    Image.fromarray((40 + pixels * 160).astype(np.uint8)).save(path)


@pytest.fixture
def clean(tmp_path):
    """Different images of different patients, whose classes differ in nothing."""
    rows = []
    for split, count in COUNTS.items():
        for index in range(count):
            path = tmp_path / f"{split}_{index}.png"
            write(path, len(rows))
            ill = split == "test" and index % 2
            rows.append((str(path), split, "ill" if ill else "good", int(ill), f"patient-{split}-{index}"))
    return DataFrame(rows, columns=["image_path", "split", "label", "label_index", "patient_id"])


def run(samples, **limits):
    return audit(samples, AuditLimits(**limits), workers=0, progress=False)


def checks(report):
    return [finding.check for finding in report.findings]


def test_clean_data_have_no_findings(clean):
    report = run(clean)
    assert report.findings == []
    assert len(report.samples) == sum(COUNTS.values())
    counts = report.counts().set_index(["split", "label"])
    assert counts.images.to_dict() == {
        ("train", "good"): 8,
        ("val", "good"): 3,
        ("test", "good"): 8,
        ("test", "ill"): 8,
    }
    assert counts.patients["train", "good"] == 8


def test_a_log_has_no_bars(clean, capsys):
    audit(clean, workers=0, progress=True)
    assert "%|" not in capsys.readouterr().err


def test_of_many_shortcuts_one_by_chance_is_no_finding(clean):
    """Its p-value is 0.02, and seven others were tried."""
    place = clean.index.to_numpy() - 11
    clean["meta_age"] = [str(index // 2 + (3.5 if index % 2 else 0)) for index in place]
    report = run(clean, max_shortcut_auroc=0.8)
    (age,) = [shortcut for shortcut in report.shortcuts if shortcut.name == "meta_age"]
    assert age.auroc > 0.8
    assert 0.05 / len(report.shortcuts) < age.p_value < 0.05
    assert report.findings == []
    assert any("it may be chance: meta_age" in note for note in report.notes)


def test_an_exact_copy_in_the_test_is_found(clean):
    source, copy = clean.image_path[0], clean.image_path[11]
    Image.open(source).save(copy)
    report = run(clean)
    assert checks(report) == ["duplicates"]
    assert "Images of test with a duplicate in train: 1, 6.2% (pairs: 1 same file)" in report.findings[0].message
    assert (report.pairs["first"][0], report.pairs.second[0]) == (0, 11)


def test_a_recompressed_copy_in_the_validation_is_found(clean, tmp_path):
    copy = tmp_path / "copy.jpg"
    Image.open(clean.image_path[0]).save(copy, quality=60)
    clean.loc[9, "image_path"] = str(copy)
    assert checks(run(clean)) == ["duplicates"]
    assert checks(run(clean, max_duplicates=1)) == []


def test_copies_between_training_and_pool_are_counted_but_no_finding(clean):
    clean.loc[0, "split"] = "unlabeled"
    Image.open(clean.image_path[0]).save(clean.image_path[1])
    clean.loc[0, "patient_id"] = clean.patient_id[1]
    report = run(clean)
    assert report.findings == []
    assert [(count.first, count.second, count.leak) for count in report.duplicates] == [("train", "unlabeled", False)]
    assert [overlap.patients for overlap in report.overlaps] == [1]


def test_a_patient_in_training_and_test_is_found(clean):
    clean.loc[[11, 12], "patient_id"] = clean.patient_id[0]
    report = run(clean)
    assert checks(report) == ["patient overlap"]
    assert (report.overlaps[0].patients, report.overlaps[0].images) == (1, 2)
    assert checks(run(clean, max_patient_overlap=1)) == []


def test_unknown_patients_do_not_overlap(clean):
    report = run(clean.assign(patient_id=""))
    assert report.findings == []
    assert any("No patients are known" in note for note in report.notes)


def test_a_file_size_that_gives_the_label_away_is_found(clean):
    for path, ill in zip(clean.image_path, clean.label_index, strict=True):
        if ill:
            with open(path, "ab") as file:  # noqa: PTH123
                file.write(bytes(5000))
    report = run(clean)
    assert checks(report) == ["shortcut"]
    assert "file_size" in report.findings[0].message
    assert checks(run(clean, max_shortcut_auroc=1)) == []


def test_metadata_that_give_the_label_away_are_found(clean):
    samples = clean.assign(meta_view=["AP" if ill else "PA" for ill in clean.label_index])
    report = run(samples)
    assert [finding.message.split()[0] for finding in report.findings] == ["meta_view"]


def test_two_images_a_class_are_too_few_for_a_finding(clean):
    samples = clean.head(COUNTS["train"] + COUNTS["val"] + 4)
    samples = samples.assign(meta_dose=[str(9 * ill) for ill in samples.label_index])
    report = run(samples)
    assert report.findings == []
    assert any("may be chance" in note and "meta_dose" in note for note in report.notes)


def test_an_unreadable_image_is_a_finding_and_the_rest_is_audited(clean):
    with open(clean.image_path[2], "r+b") as file:  # noqa: PTH123
        file.truncate(300)
    report = run(clean)
    assert checks(report) == ["unreadable"]
    assert "train_2.png" in report.findings[0].message
    assert len(report.samples) == sum(COUNTS.values()) - 1
    assert checks(run(clean, max_unreadable=1)) == []


def test_repeated_images_within_a_split_are_noted(clean):
    Image.open(clean.image_path[0]).save(clean.image_path[1])
    report = run(clean)
    assert report.findings == []
    assert "1 of 8 images in train repeats another one of train, pixel by pixel." in report.notes


def test_nothing_to_audit_is_an_error(clean, tmp_path):
    with pytest.raises(MedicalError, match="nothing to audit"):
        run(clean.head(0))
    with pytest.raises(MedicalError, match="None of 2 images can be read"):
        run(clean.head(2).assign(image_path=str(tmp_path / "absent.png")))


@pytest.mark.parametrize(
    "limits", [{"max_shortcut_auroc": 0.3}, {"min_similarity": 1.2}, {"max_duplicates": -1}], ids=str
)
def test_limits_that_mean_nothing_are_refused(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        AuditLimits(**limits)


def test_what_the_folders_hold_beside_is_unreadable_or_noted(clean):
    left_out = Listing([], {".gif": [Path("/x/a.gif"), Path("/x/b.gif")]}, {"Segmentation": [Path("/x/s.dcm")]})
    report = audit(clean, left_out=left_out, workers=0, progress=False)
    assert checks(report) == ["unreadable"]
    assert report.findings[0].text == "Unreadable images: 2."
    first = "Unreadable images: 2. The first: Cannot read the image /x/a.gif: found .gif, expected a "
    assert report.findings[0].message.startswith(first)
    assert [image.path for image in report.unreadable] == ["/x/a.gif", "/x/b.gif"]
    assert "Left out 1 DICOM object that shows no patient" in report.notes[0]
    assert audit(clean, AuditLimits(max_unreadable=2), left_out=left_out, workers=0, progress=False).findings == []
