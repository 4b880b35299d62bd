"""One patient, one id: what different files and lists call the same patient, and what they call nobody."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.data import MedicalFolder, MedicalPredictDataset, make_medical_folder_dataset
from anomalib_medical.io import dicom_facts, names_nobody, normalise_id
from tests.helpers.dicom_files import STUDY, write_dicom

PIXELS = np.zeros((8, 8), np.uint8)


def scan(root: Path, name: str, study: int = 0, **tags) -> None:
    """Write a file of a study that no other file is in, unless it is named."""
    study = study or sum(map(ord, name))
    tags = {"StudyInstanceUID": f"{STUDY}.{study}", "SeriesInstanceUID": f"{STUDY}.{study}.1"} | tags
    write_dicom(root / "train/good" / name, PIXELS, **tags)


def patients(root: Path, **settings) -> list[str]:
    """Number the patients of the training files, in the order of the files' names."""
    ids = list(make_medical_folder_dataset(root, **settings).patient_id)
    return [sorted(set(ids), key=ids.index).index(patient) for patient in ids]


@pytest.mark.parametrize(
    ("issuers", "same"),
    [(["", "A"], True), (["A", None], True), (["A", "a "], True), (["A", "B"], False), (["A", "B", ""], True)],
)
def test_an_issuer_tells_patients_apart_only_where_every_file_has_one(tmp_path: Path, issuers, same: bool) -> None:
    for index, issuer in enumerate(issuers):
        scan(tmp_path, str(index), PatientID="7", **({} if issuer is None else {"IssuerOfPatientID": issuer}))
    assert patients(tmp_path) == [0 if same else index for index in range(len(issuers))]


@pytest.mark.parametrize(
    ("one", "other"),
    [("7", "7.0"), ("7", "7.00"), ("0012", "0012.0"), ("Zoë", unicodedata.normalize("NFD", "Zoë")), ("7", " 7\u00a0")],
)
def test_one_id_in_many_spellings(tmp_path: Path, one: str, other: str) -> None:
    assert normalise_id(one) == normalise_id(other)
    scan(tmp_path, "a", PatientID=one, SpecificCharacterSet="ISO_IR 192")
    scan(tmp_path, "b", PatientID=other, SpecificCharacterSet="ISO_IR 192")
    assert patients(tmp_path) == [0, 0]
    (tmp_path / "list.csv").write_text(
        f"path,label,patient\ntrain/good/a,normal,{one}\ntrain/good/b,normal,{other}\n", encoding="utf-8"
    )
    table = make_medical_folder_dataset(tmp_path, manifest=tmp_path / "list.csv")
    assert table.patient_id.nunique() == 1


@pytest.mark.parametrize(("one", "other"), [("7", "07"), ("p1", "P1"), ("7.5", "7"), ("A.0", "A")])
def test_other_ids_stay_others(tmp_path: Path, one: str, other: str, caplog: pytest.LogCaptureFixture) -> None:
    scan(tmp_path, "a")
    scan(tmp_path, "b")
    (tmp_path / "list.csv").write_text(
        f"path,label,patient,split\ntrain/good/a,normal,{one},train\ntrain/good/b,normal,{other},train\n"
    )
    assert make_medical_folder_dataset(tmp_path, manifest=tmp_path / "list.csv").patient_id.nunique() == 2
    assert ("differ in leading zeros or in capitals only" in caplog.text) == (one in {"7", "p1"})


def test_patients_in_file_names_meet_in_any_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "train/good").mkdir(parents=True)
    for form, side in (("NFC", "left"), ("NFD", "right")):
        name = unicodedata.normalize(form, f"Zoë_{side}.png")
        Image.fromarray(PIXELS).save(tmp_path / "train/good" / name)
    assert patients(tmp_path, patient_pattern="^[^_]+") == [0, 0]


def test_without_an_id_a_study_is_one_patients(tmp_path: Path) -> None:
    """Anonymisers that blank the id: slices of one exam must not be divided."""
    for name, study in (("a", 1), ("b", 1), ("c", 2)):
        scan(tmp_path, name, study, **({"PatientID": ""} if name == "a" else {}))
    write_dicom(tmp_path / "train/good/d", PIXELS, StudyInstanceUID=None, SeriesInstanceUID=f"{STUDY}.99")
    write_dicom(tmp_path / "train/good/e", PIXELS, StudyInstanceUID=None, SeriesInstanceUID=None)
    assert patients(tmp_path) == [0, 0, 1, 2, 3]
    found = [item.patient_id for item in MedicalPredictDataset(tmp_path)]
    assert [sorted(set(found), key=found.index).index(patient) for patient in found] == [0, 0, 1, 2, 3]


def export(root: Path, patient: str = "SUBJ") -> Path:
    """Ten files of one id: five folders of a study each, with two series of one file."""
    for study in range(1, 6):
        for series in (1, 2):
            tags = {"PatientID": patient, "SeriesInstanceUID": f"{STUDY}.{study}.{series}"}
            scan(root, f"f{study}/s{series}/IM1", study, **tags)
    return root


def test_one_id_for_all_looks_anonymised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="Only 10 training image") as error:
        MedicalFolder(export(tmp_path)).setup()
    told = "All 10 DICOM files name the same patient (studies: 5, series: 10), as anonymised exports do"
    for text in (str(error.value), caplog.text):
        assert told in text
        assert "patient_from=study (or series, folder, file), patient_pattern, or the column patient" in text
        assert "SUBJ" not in text
    assert "same_as_test" not in str(error.value)


@pytest.mark.parametrize(("source", "count"), [("study", 5), ("series", 10), ("folder", 5), ("file", 10)])
def test_patients_from_elsewhere(tmp_path: Path, source: str, count: int, caplog: pytest.LogCaptureFixture) -> None:
    data = MedicalFolder(export(tmp_path), patient_from=source, num_workers=0)
    data.setup()
    parts = [set(part.samples.patient_id) for part in (data.train_data, data.val_data)]
    assert len(parts[0] | parts[1]) == count
    assert not parts[0] & parts[1]
    assert "anonymised" not in caplog.text


def test_a_folder_is_the_same_patient_on_both_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    export(tmp_path)
    for name in ("good/f1", "sick/f9"):
        write_dicom(tmp_path / "test" / name / "x", PIXELS, PatientID="SUBJ")
    table = make_medical_folder_dataset(tmp_path, patient_from="folder")
    assert set(table[table.split == "test"].patient_id) == {"f1", "f9"}
    assert "LEAK: 1 patient has images in train and in test" in caplog.text
    write_dicom(tmp_path / "test/good/y", PIXELS)
    with pytest.raises(ValueError, match=r"takes each folder in .*test/good as a patient, and .*good/y is in none"):
        make_medical_folder_dataset(tmp_path, patient_from="folder")


def test_a_list_comes_before_the_folder(tmp_path: Path) -> None:
    export(tmp_path)
    rows = [f"train/good/f{study}/s1/IM1,normal,{'P' if study < 3 else ''}" for study in range(1, 5)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,patient", *rows]))
    with pytest.raises(ValueError, match="patient_pattern and patient_from=study, expected one of the two"):
        make_medical_folder_dataset(tmp_path, patient_pattern="x", patient_from="study")
    table = make_medical_folder_dataset(tmp_path, manifest=tmp_path / "list.csv", patient_from="study")
    assert len(set(table.patient_id)) == 3


@pytest.mark.parametrize(
    "word", ["ANONYMOUS", "Anon", "anonymized", "0", "00000", "N/A", "unknown", "None", "XXXX", "-"]
)
def test_words_for_nobody(tmp_path: Path, word: str, caplog: pytest.LogCaptureFixture) -> None:
    assert names_nobody(word)
    for name in "ab":
        scan(tmp_path, name, PatientID=word)
    assert dicom_facts(tmp_path / "train/good/a").names_nobody
    scan(tmp_path, "c", PatientID="P7")
    assert patients(tmp_path) == [0, 0, 1]
    assert "2 DICOM files have a PatientID such as ANONYMOUS or 0" in caplog.text
    caplog.clear()
    rows = "".join(
        f"train/good/{name},normal,{patient}\n" for name, patient in zip("abc", (word, word, "P"), strict=True)
    )
    (tmp_path / "list.csv").write_text(f"path,label,patient\n{rows}")
    make_medical_folder_dataset(tmp_path, manifest=tmp_path / "list.csv")
    assert "2 files (such as" in caplog.text
    assert "have a patient such as 'unknown'" in caplog.text


@pytest.mark.parametrize("word", ["Anonym7", "10", "A0", "Xavier", "NA12878"])
def test_ids_that_are_somebodys(word: str) -> None:
    assert not names_nobody(word)


@pytest.mark.parametrize("source", ["study", "series"])
def test_files_without_a_study_are_said(tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture) -> None:
    export(tmp_path)
    Image.fromarray(PIXELS).save(tmp_path / "train/good/x.png")
    table = make_medical_folder_dataset(tmp_path, patient_from=source)
    assert table.patient_id.nunique() == (6 if source == "study" else 11)
    assert f"patient_from={source}: 1 of 11 files names none. Each counts as a patient of its own." in caplog.text


@pytest.mark.parametrize("kind", ["absolute", "linked", "up and down"])
def test_folders_in_a_list_whatever_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    root = tmp_path / "data"
    rows = []
    for number in range(4):
        path = root / f"f{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS + number).save(path)
        rows.append(f"f9/../{path.relative_to(root)}" if kind == "up and down" else str(path))
    (root / "f9").mkdir()
    (root / "list.csv").write_text("path,label,split\n" + "".join(f"{row},normal,train\n" for row in rows))
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    given = {"absolute": Path("data"), "linked": tmp_path / "link", "up and down": root}[kind]
    table = make_medical_folder_dataset(given, manifest=root / "list.csv", patient_from="folder")
    assert sorted(table.patient_id) == ["f0", "f0", "f1", "f1"]


@pytest.mark.parametrize("names", [["A", "B", "B", ""], ["", "A", "A", "B", "A"]])
def test_a_header_that_a_list_names_several_patients_for_tells_none(tmp_path: Path, names: list[str]) -> None:
    """In an anonymised export a file that the list leaves open is not of whoever comes last."""
    rows = ["path,label,patient,split"]
    for index, name in enumerate(names):
        scan(tmp_path, str(index), PatientID="SUBJ")
        rows.append(f"train/good/{index},normal,{name},train")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    ids = list(make_medical_folder_dataset(tmp_path, manifest=tmp_path / "list.csv").patient_id)
    (unnamed,) = [patient for patient, name in zip(ids, names, strict=True) if not name]
    assert unnamed not in names
