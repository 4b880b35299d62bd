"""DICOM in, scores and heatmaps out, and nothing of any patient in what comes out.

Every identifying tag of every file holds a planted text. Training, testing, predicting, the audit and failures must not
let it through: not to the screen, not into a file, not into a file's name.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.datadict import DicomDictionary

from anomalib_medical.callbacks.predictions_file import read_predictions
from tests.helpers.dicom_files import make_dicom

pytestmark = pytest.mark.slow

PLANTED = "zqplanted"
BIRTHDAY = "19470813"
UID = "1.2.826.0.1.47081347"
_TEXT = {"PN": f"{PLANTED}^Jane", "DA": BIRTHDAY, "DT": f"{BIRTHDAY}101112", "UI": UID}
_FREE = {"LO", "SH", "LT", "ST", "UT", "UC"}
# Not of the patient, or needed to read the file.
_KEPT = {"Manufacturer", "ManufacturerModelName", "SOPClassUID", "SpecificCharacterSet"}


def plant(path: Path, pixels: np.ndarray, patient: str) -> None:
    """Write a file whose every text, name, date and UID is planted."""
    data = make_dicom(pixels)
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        if retired or tag >> 16 in {0x0000, 0x0002, 0x0004, 0x0028, 0x7FE0} or keyword in _KEPT or not keyword:
            continue
        if vr in _TEXT or (vr in _FREE and multiplicity in {"1", "1-n"}):
            setattr(data, keyword, _TEXT.get(vr, PLANTED))
    data.PatientID = f"{PLANTED}-{patient}"
    data.Modality, data.ViewPosition, data.PatientSex, data.PatientAge = "CR", "PA", "F", "078Y"
    # A value of the wrong kind: pydicom warns of it, quoting it.
    data.add_new(0x00080070, "LO", f"ACME {'x' * 80}")
    data.private_block(0x0099, f"{PLANTED} creator", create=True).add_new(1, "LO", PLANTED)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    for part, count in {"train/good": 6, "test/good": 3, "test/lesion": 3}.items():
        for index in range(count):
            pixels = rng.integers(0, 3000, (48, 40)).astype(np.uint16)
            plant(folder / part / f"IM{part.replace('/', '')}{index:04d}", pixels, f"{part}{index // 2}")
    return folder


def run(cwd: Path, *arguments: object, code: int = 0) -> str:
    command = [str(Path(sys.executable).with_name("anomalib-medical")), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "always"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == code, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def check(shown: str, folder: Path) -> None:
    """Look for what was planted on the screen and in every file, whatever its format."""
    secrets = (PLANTED, BIRTHDAY, UID)
    for secret in secrets:
        assert secret not in shown.lower(), shown[max(0, shown.lower().find(secret) - 200) :][:400]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes().lower()
        for secret in secrets:
            assert secret.encode() not in content, path
            assert secret.encode("utf-16-le") not in content, path
            assert secret not in path.name.lower()


MODEL = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false", "--model.image_size=64"]
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]


def test_the_planted_text_can_be_found(root: Path) -> None:
    """Else the other tests could not fail."""
    path = next((root / "train" / "good").iterdir())
    header = pydicom.dcmread(path)
    planted = [element.keyword for element in header if PLANTED in str(element.value)]
    assert len(planted) > 150
    assert {"PatientName", "PatientID", "PatientComments", "InstitutionName", "AccessionNumber"} <= set(planted)
    with pytest.raises(AssertionError):
        check("", path.parent)


def test_train_and_predict_bare_folders(root: Path, tmp_path: Path) -> None:
    data = ["--data=MedicalFolder", f"--data.root={root}", "--data.name=scans", "--data.num_workers=0"]
    shown = run(tmp_path, "train", *MODEL, *CPU, *data, "--trainer.max_epochs=1")
    run_folder = tmp_path / "results/Scrd/scans/v0"
    checkpoint = run_folder / "weights/lightning/model.ckpt"
    rows = read_predictions(run_folder / "predictions.csv")
    assert len(rows) == 6
    assert {row.patient[:2] for row in rows} == {"p-"}
    assert len({row.patient for row in rows}) == 4  # two images a patient, three images a class

    bare = root / "test"
    (tmp_path / "bare").symlink_to(bare / "lesion", target_is_directory=True)
    shown += run(tmp_path, "predict", *MODEL, *CPU, "--ckpt_path", checkpoint, "--data", tmp_path / "bare")
    command = ["predict", *MODEL, *CPU, "--ckpt_path", checkpoint, "--data=MedicalFolder"]
    shown += run(tmp_path, *command, f"--data.root={tmp_path / 'bare'}", "--data.name=again", "--data.num_workers=0")
    check(shown, tmp_path / "results")

    for folder in (tmp_path / "results" / "Scrd" / "latest", tmp_path / "results" / "Scrd" / "again" / "latest"):
        assert folder.exists(), sorted((tmp_path / "results").rglob("*"))
        with (folder / "predictions.csv").open(newline="") as file:
            assert [Path(row["path"]).name for row in csv.DictReader(file)] == sorted(
                path.name for path in (bare / "lesion").iterdir()
            )
        for kind in ("images", "masks"):
            pictures = list((folder / kind).rglob("*.png"))
            assert len(pictures) == 3
            assert Image.open(pictures[0]).size == ((40, 48) if kind == "masks" else Image.open(pictures[0]).size)


def test_the_audit(root: Path, tmp_path: Path) -> None:
    shown = run(tmp_path, "audit", "--data=MedicalFolder", f"--data.root={root}", "--output", tmp_path / "report")
    assert "12 images read, 0 unreadable" in shown
    assert (tmp_path / "report" / "index.html").is_file()
    check(shown, tmp_path / "report")


def test_failures(root: Path, tmp_path: Path) -> None:
    whole = next((root / "train" / "good").iterdir()).read_bytes()
    shown = ""
    # Without pixels whole, and cut off in the middle of the header, the latter with the traceback.
    for name, content, debug in (("half", whole[: len(whole) - 2000], []), ("header", whole[:3000], ["--debug"])):
        path = tmp_path / name / "IM0001"
        path.parent.mkdir()
        path.write_bytes(content)
        shown += run(tmp_path, "predict", *MODEL, *CPU, "--data", path.parent, *debug, code=1)
    assert "IM0001" in shown
    (tmp_path / "results").mkdir(exist_ok=True)
    (tmp_path / "results" / "shown.txt").write_text(shown)
    check(shown, tmp_path / "results")
