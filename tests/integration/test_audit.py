"""`anomalib-medical audit` on small data sets: exit codes, files, and what they do not say."""

import csv
import json
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from anomalib_medical.cli import main as cli

PATIENT = "Mustermann-19551224"


def write(path, seed):
    noise = np.random.default_rng(seed).normal(size=(64, 64))
    pixels = sum(gaussian_filter(noise, sigma) * sigma for sigma in (2, 4, 8))
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((40 + pixels * 160).astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """Different images whose classes differ in nothing."""
    folders = ["train/good"] * 10 + ["test/good"] * 5 + ["test/lesion"] * 5
    for seed, folder in enumerate(folders):
        write(tmp_path / "data" / folder / f"{seed}.png", seed)
    return tmp_path / "data"


def audit(*arguments):
    """Run the command, return its exit code."""
    try:
        cli.main(["audit", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code
    return 0


def test_clean_data_exit_with_0(root, tmp_path, capsys):
    output = tmp_path / "report"
    assert audit("--data", "MedicalFolder", "--data.root", root, "--output", output) == 0
    shown = capsys.readouterr().out
    assert "Nothing above the limits" in shown
    assert str(output / "index.html") in shown
    names = {"report.json", "findings.csv", "pairs.csv", "features.csv", "index.html", ".patient_salt"}
    assert {path.name for path in output.iterdir()} == names
    report = json.loads((output / "report.json").read_text("utf-8"))
    assert report["findings"] == []
    assert sum(row["images"] for row in report["counts"]) == 20
    with (output / "features.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 20


def test_leaks_exit_with_1_and_show_the_pair(root, tmp_path, capsys):
    Image.open(root / "train/good/0.png").save(root / "test/lesion/copy.jpg", quality=70)
    output = tmp_path / "report"
    assert audit("--data", "MedicalFolder", "--data.root", root, "--output", output) == 1
    assert "Images of test with a duplicate in" in capsys.readouterr().out
    with (output / "pairs.csv").open(encoding="utf-8") as file:
        (pair,) = csv.DictReader(file)
    assert (pair["first_path"], pair["second_path"]) == (
        str(root / "train/good/0.png"),
        str(root / "test/lesion/copy.jpg"),
    )
    page = (output / "index.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http://" not in page
    assert "https://" not in page
    assert audit("--data", "MedicalFolder", "--data.root", root, "--max_duplicates", "1") == 0


def test_a_report_is_never_overwritten(root, tmp_path):
    for _ in range(2):
        assert audit("--data", "MedicalFolder", "--data.root", root, "--output", tmp_path / "report") == 0
    assert (tmp_path / "report_1" / "index.html").exists()


def test_no_patient_and_no_metadata_value_reaches_a_file(root, tmp_path, capsys):
    rows = ["path,label,patient,split,meta_ward"]
    for index, path in enumerate(sorted(root.rglob("*.png"))):
        split, folder = path.relative_to(root).parts[:2]
        patient = PATIENT if index in {0, 12} else f"{PATIENT}-{index}"
        label = "normal" if folder == "good" else "abnormal:lesion"
        rows.append(f"{path.relative_to(root)},{label},{patient},{split},Ward-{PATIENT}")
    # A patient on both sides is refused by the manifest's reader: the same image twice is what remains to be shown.
    rows = [row.replace(f"{PATIENT},test", f"{PATIENT}-x,test") for row in rows]
    Image.open(root / "train/good/0.png").save(root / "test/good/10.png")
    (tmp_path / "list.csv").write_text("\n".join(rows), "utf-8")
    output = tmp_path / "report"
    code = audit(
        *("--data", "MedicalFolder", "--data.root", root, "--data.manifest", tmp_path / "list.csv", "--output", output)
    )
    assert code == 1
    captured = capsys.readouterr()
    written = "".join(path.read_text("utf-8") for path in output.iterdir())
    assert "p-" in (output / "pairs.csv").read_text("utf-8")
    for text in (captured.out, captured.err, written):
        assert "Mustermann" not in text
        assert "19551224" not in text


def test_what_cannot_run_exits_with_2(root, tmp_path, capsys):
    assert audit("--data", "MedicalFolder", "--data.root", tmp_path / "absent") == 2
    assert "error: " in capsys.readouterr().err
    assert audit("--data", "NoSuchData") == 2
    assert audit("--data", "MedicalFolder", "--data.root", root, "--max_shortcut_auroc", "0.2") == 2
    assert "max_shortcut_auroc is 0.2" in capsys.readouterr().err
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert audit("--data", "MedicalFolder", "--data.root", root, "--output", blocked) == 2


def test_anomalibs_own_datamodules_and_yaml_files_work(root, tmp_path, capsys):
    folder = {"name": "mine", "root": str(root), "normal_dir": "train/good", "abnormal_dir": "test/lesion"}
    folder |= {"normal_test_dir": "test/good", "val_split_mode": "from_test", "val_split_ratio": 0.3}
    config = {"class_path": "anomalib.data.Folder", "init_args": folder}
    (tmp_path / "data.yaml").write_text(json.dumps(config))
    assert audit("--data", tmp_path / "data.yaml") == 0
    assert "No patients are known" in capsys.readouterr().out
    (tmp_path / "all.yaml").write_text(json.dumps({"data": config, "max_shortcut_auroc": 0.9}))
    assert audit("--config", tmp_path / "all.yaml") == 0


def test_paths_can_be_hashed(root, tmp_path):
    """Folders are often named after patients: with the option no file of the report holds their names."""
    for index, path in enumerate(sorted(root.rglob("*.png"))):
        folder = path.parent / f"{PATIENT}-{index}"
        folder.mkdir()
        path.rename(folder / path.name)
    good = next((root / "train/good").rglob("0.png"))
    copy = good.parent.parent.parent.parent / "test/lesion" / PATIENT / "copy.png"
    copy.parent.mkdir()
    Image.open(good).save(copy)
    (copy.parent / "torn'.png").write_bytes(copy.read_bytes()[:300])
    for name in ("x", "x torn"):  # the path of one is the beginning of the other's
        (copy.parent / name).write_bytes(b"GIF89a\0\0")
    outputs = tmp_path / "plain", tmp_path / "hashed"
    for output, options in zip(outputs, ([], ["--hash_paths"]), strict=True):
        assert audit("--data", "MedicalFolder", "--data.root", root, "--output", output, *options) == 1
    plain, hashed = ({path.name: path.read_text("utf-8") for path in output.iterdir()} for output in outputs)
    named = {name for name, text in plain.items() if PATIENT in text}
    assert named == {"features.csv", "pairs.csv", "findings.csv", "report.json", "index.html"}
    page = " ".join(plain["index.html"].split())
    assert "ids appear in this folder as hashes only" in page
    assert all(name in page for name in named - {"index.html"})
    for text in hashed.values():
        for part in (PATIENT, "19551224", str(tmp_path), root.name + "/", "0.png", "torn", "copy"):
            assert part not in text
    assert "So do the paths of images" in hashed["index.html"]
    rows = list(csv.DictReader(hashed["features.csv"].splitlines()))
    assert len({row["image_path"] for row in rows}) == 21
    (pair,) = csv.DictReader(hashed["pairs.csv"].splitlines())
    assert {pair["first_path"], pair["second_path"]} < {row["image_path"] for row in rows}
    pictures = [text["index.html"].split("data:image/jpeg;base64,")[1:] for text in (plain, hashed)]
    assert [part.partition('"')[0] for part in pictures[0]] == [part.partition('"')[0] for part in pictures[1]]
    assert len(pictures[0]) == 2


def test_slices_keep_their_number_when_paths_are_hashed(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 1000, (9, 9, 3)).astype(np.int16)
    for name in ("train/good/a", "train/good/b", "test/good/c", "test/bad/d"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.roll(voxels, len(name), 0), np.eye(4)), tmp_path / "data" / f"{name}.nii")
    audit("--data", "MedicalFolder", "--data.root", tmp_path / "data", "--output", tmp_path / "out", "--hash_paths")
    with (tmp_path / "out/features.csv").open(encoding="utf-8") as file:
        paths = [row["image_path"] for row in csv.DictReader(file)]
    assert len(paths) == 12
    assert all(re.fullmatch(r"f-[0-9a-f]{12}#axial=[012]", path) for path in paths)
    assert len({path.partition("#")[0] for path in paths}) == 4


def test_files_that_are_not_read_are_findings(root, tmp_path, capsys):
    Image.new("L", (8, 8)).save(root / "test" / "lesion" / "x.gif")
    # A name that is no text: written in every file, and shown.
    os.mkfifo(os.fsencode(root / "train" / "good") + b"/caf\xe9.png")
    write(root / "train" / "good" / os.fsdecode(b"\xe9.png"), 99)
    output = tmp_path / "report"
    assert audit("--data", "MedicalFolder", "--data.root", root, "--output", output) == 1
    shown = capsys.readouterr().out
    assert "21 images read, 2 unreadable" in shown
    assert "Nothing above the limits" not in shown
    report = json.loads((output / "report.json").read_text("utf-8"))
    assert {Path(image["path"]).name for image in report["unreadable"]} == {"x.gif", "caf\\udce9.png"}
    assert "x.gif" in (output / "index.html").read_text("utf-8")
    paths = pd.read_csv(output / "features.csv").image_path
    assert any(path.endswith("\\udce9.png") for path in paths)
