"""BMAD's sets by patients, and anomalib's own ``BMAD`` in a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from anomalib.data.datasets.image.bmad import make_bmad_dataset as theirs

from anomalib_medical.benchmark.build import build_datamodule
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.data import MedicalBMAD, make_bmad_dataset
from anomalib_medical.data.published.bmad import Category
from anomalib_medical.errors import MedicalError
from tests.helpers.published_trees import write_anomalib_bmad, write_image

LABEL = "test/Ungood/label"


def write_brain(root: Path) -> Path:
    """Brains of BraTS' names: three slices a patient; patient 5 is in training and test."""
    for folder, patients in {"train/good": range(6), "test/good/img": (5, 6), "test/Ungood/img": (7, 8)}.items():
        for name in (f"{patient:05d}_{number}.png" for patient in patients for number in (60, 61, 62)):
            write_image(root / "Brain" / folder / name)
            if "Ungood" in folder:
                write_image(root / "Brain" / LABEL / name)
    for folder in ("valid/good/img", "valid/Ungood/img", "valid/Ungood/label"):
        write_image(root / "Brain" / folder / "00009_60.png")
    return root


def build(root: Path, **arguments) -> MedicalBMAD:
    """What a plan makes of anomalib's class."""
    data = {"class_path": "BMAD", "init_args": {"root": str(root)} | arguments}
    plan = make_plan({"models": {"m": {"class_path": "Padim"}}, "datasets": {"bmad": data}}, "plan.yaml")
    made = build_datamodule(plan, "bmad")
    made.prepare_data()
    made.setup()
    assert isinstance(made, MedicalBMAD)
    return made


def test_a_plan_reads_it_by_patients_and_never_thresholds_on_the_test(tmp_path: Path) -> None:
    data = build(write_brain(tmp_path), category="Brain", val_split_ratio=0.2)
    parts = {name: set(getattr(data, f"{name}_data").samples.patient_id) for name in ("train", "val", "test")}
    assert parts["train"] | parts["val"] == {f"{patient:05d}" for patient in range(5)}  # 5 is tested
    assert parts["test"] == {"00005", "00006", "00007", "00008"}
    assert len(parts["val"]) == 1
    assert not parts["train"] & parts["val"]
    assert set(data.val_data.samples.label_index) == {0}
    assert not any("valid" in path for path in data.val_data.samples.image_path)
    abnormal = data.test_data.samples[data.test_data.samples.label_index == 1]
    assert [Path(path).parent.name for path in abnormal.mask_path] == ["label"] * 6
    assert [Path(path).stem for path in abnormal.mask_path] == [Path(path).stem for path in abnormal.image_path]
    assert data.test_data[0].gt_mask is not None


def test_labels_and_parts_are_anomalibs(tmp_path: Path) -> None:
    root = write_brain(tmp_path) / "Brain"
    expected = theirs(root)
    expected = expected[(expected.split != "valid") & ~expected.image_path.str.contains("train/good/00005")]
    columns = ["split", "image_path", "label", "label_index"]
    ours = make_bmad_dataset(root, "Brain")[columns]
    assert sorted(map(tuple, ours.to_numpy())) == sorted(map(tuple, expected[columns].to_numpy()))


@pytest.mark.parametrize(
    ("category", "name", "patients"),
    [
        ("Brain", "BraTS2021_01000_{}", {"01000"}),
        ("Liver", "7_{}", {"test 7", "train 7"}),  # of two sources
        ("Retina_OCT2017", "CNV-103-{}", {"103"}),
        ("Histopathology", "tumor_007_{}", {"tumor_007"}),
    ],
)
def test_names_tell_patients(tmp_path: Path, category: Category, name: str, patients: set[str]) -> None:
    root = write_anomalib_bmad(tmp_path, category=category, name=name) / category
    samples = make_bmad_dataset(root, category)
    # Of one patient in both parts, the training images go.
    assert set(samples.patient_id) == patients
    assert set(samples.split) == ({"train", "test"} if category == "Liver" else {"test"})


@pytest.mark.parametrize("category", ["Chest", "Retina_RESC", "Histopathology", "Brain"])
def test_where_names_do_not_tell_each_image_is_a_patient_and_that_is_said(tmp_path, category, caplog) -> None:
    samples = make_bmad_dataset(write_anomalib_bmad(tmp_path, category=category) / category, category)
    assert samples.patient_id.is_unique
    assert len(samples) == 18
    assert f"BMAD {category}: 18 of 18 file names do not name a patient" in caplog.text


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"category is 'Liver2', expected one of Brain, Chest"):
        MedicalBMAD(tmp_path, category="Liver2")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"(?s)BMAD's Chest is not in .*anomalib.data.BMAD"):
        build(tmp_path, category="Chest")
    with pytest.raises(MedicalError, match="MedicalBMAD has no argument 'test_split_ratio'"):
        build(tmp_path, test_split_ratio=0.2)
