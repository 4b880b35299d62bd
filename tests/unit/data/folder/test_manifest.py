"""A CSV manifest: what each row says, and what is refused."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame
from PIL import Image

from anomalib_medical.data import MedicalFolder, make_medical_folder_dataset
from anomalib_medical.data.folder.manifest import Wording, split_samples
from anomalib_medical.errors import MedicalError
from tests.helpers.dicom_files import write_dicom

GOOD = """path,label,patient,mask,split,meta_view
a.png,normal,p1,,train,PA
b.png,0,p2,,train,AP
c.png,good,p3,,val,PA
d.png,normal,p4,,test,PA
e.png,abnormal:tumour,p5,m.png,test,AP
f.png,1,p5,,test,AP
g.png,abnormal,p1,m.png,unlabeled,
h.png,,p6,,unlabeled,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (*"abcdefgh", "m", "Ä ö"):
        Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def manifest(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "list.csv"
    path.write_text(text, encoding=encoding)
    return path


def samples(root: Path, text: str, wording: Wording | None = None, **kwargs):
    table = make_medical_folder_dataset(root, manifest=manifest(root, text, **kwargs), wording=wording)
    table.index = [Path(path).stem for path in table.image_path]
    return table


def test_every_column(root: Path) -> None:
    table = samples(root, GOOD)
    assert list(table.split) == ["train", "train", "val", "test", "test", "test", "unlabeled", "unlabeled"]
    assert list(table.label[:6]) == ["good", "good", "good", "good", "tumour", "abnormal"]
    assert list(table.label_index[:6]) == [0, 0, 0, 0, 1, 1]
    assert table.mask_path["e"] == str(root / "m.png")
    assert table.mask_path["f"] == ""
    assert table.patient_id["e"] == "p5"
    assert table.meta_view["b"] == "AP"
    assert table.attrs["task"] == "segmentation"


def test_nothing_is_known_of_the_unlabeled(root: Path) -> None:
    table = samples(root, GOOD)
    assert set(table.label["g":"h"]) == {"unlabeled"}
    assert set(table.mask_path["g":"h"]) == {""}


def test_the_datamodule_uses_the_given_validation(root: Path) -> None:
    datamodule = MedicalFolder(root, manifest=manifest(root, GOOD), num_workers=0)
    datamodule.setup()
    parts = (datamodule.train_data, datamodule.val_data, datamodule.test_data, datamodule.unlabeled_data)
    assert [len(part) for part in parts] == [2, 1, 3, 2]


def test_bom_crlf_and_spaces(root: Path) -> None:
    text = "path,label,split\r\n Ä ö.png , Normal ,train\r\na.png,ABNORMAL,test\r\n"
    assert list(samples(root, text, encoding="utf-8-sig").label_index) == [0, 1]


def test_without_splits_patients_are_divided(root: Path) -> None:
    text = "path,label,patient\na.png,normal,p1\nb.png,abnormal,p1\nc.png,normal,p2\nd.png,normal,p3\nh.png,,p4\n"
    table = samples(root, text)
    assert table.split["a"] == table.split["b"] == "test"
    assert sorted(table.split[["c", "d"]]) == ["test", "train"]
    assert table.split["h"] == "unlabeled"


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_no_patient_on_both_sides_whatever_the_order(images, seed, random) -> None:
    def split(order):
        table = DataFrame(
            {
                "image_path": [f"{index}.png" for index, _ in order],
                "split": "",
                "label_index": [int(ill) for _, (_, ill) in order],
                "patient_id": [f"p{patient}" for _, (patient, _) in order],
            }
        )
        return split_samples(table, seed).set_index("image_path").sort_index()

    numbered = list(enumerate(images))
    result = split(numbered)
    sides = {side: set(result[result.split == side].patient_id) for side in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert set(result[result.label_index == 1].split) <= {"test"}
    random.shuffle(numbered)
    assert split(numbered).equals(result)


def test_copies_are_one_patient_on_request(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "abcd":
        noise = Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        noise.save(root / f"{name}.png")
    Image.open(root / "a.png").save(root / "e.jpg", quality=90)
    text = "path,label\n" + "".join(f"{name},normal\n" for name in ("a.png", "b.png", "c.png", "d.png"))
    text += "e.jpg,abnormal\n"
    plain, grouped = (
        make_medical_folder_dataset(root, manifest=manifest(root, text), deduplicate=deduplicate)
        for deduplicate in (False, True)
    )
    assert plain.patient_id.nunique() == 5
    assert grouped.patient_id.nunique() == 4
    # The copy of the abnormal image is of an ill patient, and so in the test.
    assert set(grouped[grouped.image_path.str.contains("a.png|e.jpg")].split) == {"test"}


def test_copies_of_test_images_are_dropped_from_training(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        noise = Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        noise.save(root / f"{name}.png")
    Image.open(root / "a.png").save(root / "e.jpg", quality=90)
    text = "path,label,split\na.png,normal,train\nb.png,normal,train\nc.png,abnormal,test\ne.jpg,normal,test\n"
    table = make_medical_folder_dataset(root, manifest=manifest(root, text), deduplicate=True)
    assert [Path(path).name for path in table.image_path] == ["b.png", "c.png", "e.jpg"]


REFUSED = {
    "duplicate": ("path,label\na.png,normal\n./a.png,normal\n", "line 3: this row lists the same image as line 2"),
    "unknown column": ("path,label,pateint\na.png,normal,p\n", "Unknown: pateint."),
    "missing column": ("path,split\na.png,train\n", "Missing: label."),
    "column twice": ("path,label,label\na.png,normal,normal\n", "Twice: label."),
    "label": ("path,label\na.png,normal\nb.png,sick\n", "line 3: this row has the label 'sick'; expected normal"),
    "class good": ("path,label\na.png,normal\nb.png,abnormal:good\n", "line 3: this row has the label 'abnormal:good'"),
    "class normal": ("path,label\na.png,abnormal:Normal \n", "line 2: this row has the label 'abnormal:Normal'"),
    "class unlabeled": ("path,label\na.png,abnormal:unlabeled\n", "line 2: this row has the label"),
    "no header": ("a.png,normal,Jane Doe\n", "is no header: it names none of the columns path, label"),
    "semicolons": ("path;label\na.png;normal\n", "separated by semicolons"),
    "no such frame": ("path,label\na.png#frame=3,normal\n", "line 2: this row names the path 'a.png#frame=3'"),
    "split": ("path,label,split\na.png,normal,trian\n", "line 2: this row has the split 'trian'; expected one of"),
    "outside": ("path,label\n../x.png,normal\n", "line 2: this row names the path '../x.png', which is outside"),
    "absolute": ("path,label\n/etc/passwd,normal\n", "line 2: this row names the path '/etc/passwd', which is outside"),
    "mask outside": ("path,label,mask\na.png,abnormal,../m.png\n", "names the mask '../m.png', which is outside"),
    "no path": ("path,label\n,normal\n", "line 2: this row has no path"),
    "abnormal in training": ("path,label,split\na.png,abnormal,train\n", "line 2: .* normal images only"),
    "unlabeled in test": ("path,label,split\na.png,,test\n", "line 2: this row puts an image without a label"),
    "cells": ("path,label\na.png,normal,3\n", "line 2: this row has 3 cells; expected 2"),
    "too few cells": ("path,label\na.png\n", "line 2: this row has 1 cells; expected 2"),
    "empty": ("", "has the columns none; expected path, label"),
    "no rows": ("path,label\n", "has a header and no rows"),
    "patient twice": (
        "path,label,patient,split\na.png,normal,Jane Doe,train\nb.png,normal,Jane Doe,test\n",
        "line 3: this row is in the split test, while line 2 puts the same patient into train",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(MedicalError, match=message) as error:
        samples(root, text)
    assert "list.csv" in str(error.value)
    assert "Jane" not in str(error.value)


def test_a_link_that_leads_outside_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.png"
    (root / "a.png").rename(elsewhere)
    (root / "a.png").symlink_to(elsewhere)
    with pytest.raises(MedicalError, match="is outside"):
        samples(root, "path,label\na.png,normal\n")


@pytest.mark.parametrize("column", ["path", "mask"])
def test_a_missing_file_is_named(root: Path, column: str) -> None:
    row = {"path": "absent.png,abnormal,", "mask": "a.png,abnormal,absent.png"}[column]
    with pytest.raises(FileNotFoundError, match=rf"line 2: there is no file .*absent\.png \({column} 'absent.png'\)"):
        samples(root, f"path,label,mask\n{row}\n")


def test_not_text(root: Path) -> None:
    (root / "list.csv").write_bytes(b"path,label\na\xff.png,normal\n")
    with pytest.raises(MedicalError, match="not UTF-8"):
        make_medical_folder_dataset(root, manifest=root / "list.csv")


def test_only_abnormal_images(root: Path) -> None:
    with pytest.raises(ValueError, match="leaves no normal image for training: of 2 images"):
        samples(root, "path,label,patient\na.png,abnormal,p\nb.png,normal,p\n")


def test_tested_patients_leave_the_pool(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "path,label,patient\na.png,normal,p1\nb.png,abnormal,p2\nc.png,,p2\nd.png,,p3\n"
    with caplog.at_level(logging.INFO):
        table = samples(root, text)
    assert dict(table.split) == {"a": "train", "b": "test", "d": "unlabeled"}
    assert "Dropped 1 unlabeled image of patients who" in caplog.text


def test_a_header_that_knows_the_patient_completes_the_list(root: Path) -> None:
    for name, patient in (("x", "Jane"), ("y", "Jane"), ("z", "Joan")):
        write_dicom(root / f"{name}.dcm", np.zeros((8, 8), np.uint8), PatientID=patient)
    rows = "x.dcm,normal,Q0,train\ny.dcm,normal,{},{}\nz.dcm,normal,,train\n"
    table = samples(root, "path,label,patient,split\n" + rows.format("", "train"))
    assert table.patient_id["x"] == table.patient_id["y"] == "Q0" != table.patient_id["z"]
    with pytest.raises(MedicalError, match="line 3: this row is in the split test, while line 2 puts the same patient"):
        samples(root, "path,label,patient,split\n" + rows.format("", "test"))


def test_the_pool_may_not_hold_a_tested_patient(root: Path) -> None:
    for folder, name in ((root, "x"), (root / "pool", "y")):
        write_dicom(folder / f"{name}.dcm", np.zeros((8, 8), np.uint8), PatientID="Jane")
    text = "path,label,split\na.png,normal,train\nx.dcm,normal,test\n"
    with pytest.raises(MedicalError, match=r"y\.dcm is of a patient whom line 3 puts into test"):
        make_medical_folder_dataset(root, manifest=manifest(root, text), unlabeled_dir=root / "pool")


def test_a_patient_pattern_fills_in(root: Path) -> None:
    table = make_medical_folder_dataset(
        root, manifest=manifest(root, "path,label,patient\na.png,normal,p1\nb.png,normal,\n"), patient_pattern="^(.)$"
    )
    assert set(table.patient_id) == {"p1", "b"}


def test_an_absent_manifest(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(root / "none.csv"))):
        make_medical_folder_dataset(root, manifest=root / "none.csv")


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_with_its_line(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "link.png").symlink_to("link.png")
    for name, kind in (("pipe", "a named pipe"), ("link", "a broken link")):
        with pytest.raises(MedicalError, match=rf"line 3: this row names the path '{name}.png', which is {kind}"):
            samples(root, f"path,label\na.png,normal\n{name}.png,normal\n")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_either_spelling(root: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    stored = unicodedata.normalize(other, "é")
    listed = unicodedata.normalize(form, "é")
    for name in (f"{stored}.png", f"m{stored}.png"):
        (root / "a.png").rename(root / name)
        Image.fromarray(np.full((8, 8), 200, np.uint8)).save(root / "a.png")
    text = f"path,label,patient,mask,split\na.png,normal,{listed},,train\n"
    text += f"b.png,normal,{stored},,train\n{listed}.png,1,p2,m{listed}.png,test\n"
    table = make_medical_folder_dataset(root, manifest=manifest(root, text))
    abnormal = table[table.label_index == 1].iloc[0]
    assert abnormal.image_path == str(root / f"{stored}.png")
    assert abnormal.mask_path == str(root / f"m{stored}.png")
    assert table.patient_id[0] == table.patient_id[1]


def test_objects_that_show_no_patient_are_left_out_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    write_dicom(root / "ct.dcm", pixels, PatientID="1")
    write_dicom(root / "dose.dcm", pixels, PatientID="2", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2")
    table = samples(root, "path,label\nct.dcm,normal\ndose.dcm,normal\na.png,normal\n")
    assert sorted(table.index) == ["a", "ct"]
    assert "Left out 1 DICOM object that shows no patient to learn from or to score (RT Dose: 1" in caplog.text


@pytest.mark.timeout(20)
def test_a_manifest_that_is_no_file_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    (root / "loop.csv").symlink_to("loop.csv")
    for name, kind in (("pipe.csv", "a named pipe"), ("loop.csv", "a broken link"), (".", "a folder")):
        with pytest.raises(MedicalError, match=f"is {kind}: expected a CSV file"):
            make_medical_folder_dataset(root, manifest=root / name)


def test_a_manifest_and_its_classes_in_either_spelling(root: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    rows = f"path,label,split\na.png,normal,train\nb.png,abnormal:{nfc},test\nc.png,abnormal:{nfd},test\n"
    (root / f"{nfd}.csv").write_text(rows, encoding="utf-8")
    assert set(make_medical_folder_dataset(root, manifest=root / f"{nfc}.csv").label) == {"good", nfc}


FOREIGN = """Image Index,Finding Labels,Patient ID,View Position,label,split
a.png,No Finding,p1,PA,7,train
b.png,NO FINDING,p2,AP,7,train
e.png,Mass,p5,AP,7,test
f.png,1,p5,AP,7,test
d.png,normal,p4,AP,7,test
"""
COLUMNS = {"path": "Image Index", "label": "Finding Labels", "patient": "Patient ID", "meta_view": "View Position"}
LABELS = {"No Finding": "normal", "mass": "abnormal:mass"}


def test_columns_and_labels_of_another_table(root: Path) -> None:
    table = samples(root, FOREIGN, wording=Wording(COLUMNS, LABELS))
    ours = "path,label,patient,meta_view,split\na.png,normal,p1,PA,train\nb.png,normal,p2,AP,train\n"
    ours += "e.png,abnormal:mass,p5,AP,test\nf.png,1,p5,AP,test\nd.png,normal,p4,AP,test\n"
    assert table.equals(samples(root, ours))


def test_the_datamodule_takes_them(root: Path) -> None:
    data = MedicalFolder(root, manifest=manifest(root, FOREIGN), columns=COLUMNS, labels=LABELS, val_split_ratio=0.5)
    data.setup()
    assert sorted(data.test_data.samples.label) == ["abnormal", "good", "mass"]


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ({"file": "path"}, {}, r"columns has 'file', expected path, label, .* or meta_<name>"),
        ({"label": "nowhere"}, {}, "names none of the columns path, nowhere"),
        ({}, {"Mass": "ill"}, "labels makes 'ill' of 'Mass', expected normal, abnormal, abnormal:<class> or nothing"),
        ({}, {"a": "normal", "A": "abnormal"}, "labels names a label twice"),
        (COLUMNS, {}, "line 2: this row has the label 'No Finding'; .* a word that `labels` has"),
    ],
)
def test_wording_that_does_not_fit_is_refused(root: Path, columns, labels, message: str) -> None:
    with pytest.raises(MedicalError, match=message):
        samples(root, FOREIGN, wording=Wording(columns, labels))


def test_wording_without_a_manifest_is_refused(root: Path) -> None:
    with pytest.raises(MedicalError, match="without a manifest"):
        MedicalFolder(root, columns=COLUMNS)
