"""The runtime of a bundle, run as on a device: nothing of torch, anomalib and this package can be imported there."""

import csv
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image
from pydicom import dcmread

from anomalib_medical.data.images import read_image
from anomalib_medical.edge.heatmap import picture_size
from tests.helpers.dicom_files import STUDY
from tests.helpers.edge_bundles import MISSING, device_environment, on_device
from tests.helpers.exports import TOLERANCE, by_engine
from tests.helpers.picture_files import COUNT, PATIENT

NAME = PATIENT


@pytest.fixture(scope="module")
def model(scrd):
    return scrd[0]


@pytest.fixture(scope="module")
def files(every_kind_of_file):
    return every_kind_of_file


@pytest.fixture(scope="module")
def results(bundle, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "out"
    return on_device(bundle, "run", files, "--output", output, "--dicom"), output


def rows_of(output, name="predictions"):
    with (output / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_device_has_no_torch(bundle):
    for name in ("torch", "anomalib", "anomalib_medical"):
        command = [sys.executable, "-c", f"import {name}"]
        found = subprocess.run(
            command, env=device_environment(bundle.parent / "site"), cwd=bundle, capture_output=True, check=False
        )
        assert f"{name} is not on this device".encode() in found.stderr


def test_scores_are_those_of_the_engine(results, model):
    process, output = results
    assert process.returncode == 0, process.stderr
    rows = rows_of(output)
    assert len(rows) == COUNT
    for row in rows:
        image = read_image(row["path"])[None]
        expected = by_engine(model, image)
        assert float(row["score"]) == pytest.approx(float(expected.pred_score), abs=TOLERANCE)
        with torch.no_grad():
            raw = float(model.model(model.pre_processor(image)).pred_score)
        assert float(row["raw_score"]) == pytest.approx(raw, abs=TOLERANCE)
        assert (row["label"] == "abnormal") == bool(expected.pred_label)
        assert float(row["threshold"]) == pytest.approx(1.685)
    assert len({row["label"] for row in rows}) == 2
    assert [json.loads(line)["image"] for line in (output / "predictions.jsonl").read_text().splitlines()] == [
        row["image"] for row in rows
    ]


def test_each_picture_has_a_heatmap_of_its_proportions(results):
    _, output = results
    for row in rows_of(output):
        height, width = read_image(row["path"]).shape[-2:]
        high, wide = picture_size((height, width))
        drawn = Image.open(output / "heatmaps" / f"{row['image']}.png")
        # The legend is below it.
        assert drawn.height > high
        assert drawn.width >= wide


def test_no_patient_in_logs_and_names(results):
    process, output = results
    assert NAME not in process.stdout + process.stderr
    assert not [path for path in output.rglob("*") if NAME in path.name or "colour" in path.name]


def test_another_modality_is_told(results):
    process, output = results
    assert "modality US, the model was trained on CT" in process.stderr
    assert [row["note"].startswith("modality US") for row in rows_of(output)] == [
        "cine" in row["path"] for row in rows_of(output)
    ]


def test_dicom_objects_are_of_the_study_and_others_read_them(results):
    _, output = results
    originals = {row["image"]: row["path"] for row in rows_of(output) if NAME in row["path"]}
    for image, path in originals.items():
        original = dcmread(path)
        capture = dcmread(output / "dicom" / f"{image}_capture.dcm")
        assert (capture.StudyInstanceUID, capture.PatientID) == (STUDY, "4711")
        assert capture.SeriesInstanceUID != original.SeriesInstanceUID
        assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
        shown = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(output / "dicom" / f"{image}_capture.dcm")))
        heatmap = np.asarray(Image.open(output / "heatmaps" / f"{image}.png"))
        np.testing.assert_array_equal(shown.reshape(heatmap.shape), heatmap)
    marked = list((output / "dicom").glob("*_segmentation.dcm"))
    assert marked
    for path in marked:
        segmentation = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        original = dcmread(originals[path.name.partition("_")[0]])
        assert segmentation.shape == (1, original.Rows, original.Columns)
        assert segmentation.sum() > 0
        assert dcmread(path).StudyInstanceUID == STUDY


def test_run_overwrites_nothing(bundle, files, results):
    _, output = results
    process = on_device(bundle, "run", files, "--output", output)
    assert process.returncode == 2
    assert "not empty, and nothing is overwritten: choose another --output" in process.stderr


def test_unreadable_files_are_listed_and_the_others_scored(bundle, files, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    content = (files / f"{NAME}_64.dcm").read_bytes()
    (folder / f"{NAME}.dcm").write_bytes(content[: len(content) // 2])
    shutil.copy(files / "colour_64.png", folder)
    process = on_device(bundle, "run", folder, "--output", tmp_path / "out")
    assert process.returncode == 1
    assert len(rows_of(tmp_path / "out")) == 1
    (failure,) = rows_of(tmp_path / "out", "failed")
    assert "damaged or cut off" in failure["reason"]
    assert NAME in failure["path"]
    assert NAME not in failure["reason"] + process.stderr


def test_paths_come_from_standard_input(bundle, files, tmp_path):
    wanted = f"{files / 'colour_90.png'}\n{files / 'deep_64.tiff'}\n"
    process = on_device(bundle, "run", "-", "--output", tmp_path / "out", "--no-heatmaps", "--limit", 1, input=wanted)
    assert process.returncode == 0, process.stderr
    assert [row["path"] for row in rows_of(tmp_path / "out")] == [str(files / "colour_90.png")]
    assert not (tmp_path / "out" / "heatmaps").exists()


def test_self_test(bundle):
    process = on_device(bundle, "self-test")
    assert process.returncode == 0
    assert "Self-test passed" in process.stderr


@pytest.mark.parametrize(
    "command", [["self-test"], ["run", "IN", "--output", "OUT"], ["watch", "IN", "--output", "OUT"]]
)
def test_a_tampered_bundle_is_refused(bundle, files, tmp_path, command):
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    weights = changed / "model" / "model.bin"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    (changed / "runtime" / "edge" / "overlay.py").open("a").write("# changed")
    # Modules that Python would find before the ones it looks for.
    for planted in (changed / "numpy.py", changed / "runtime" / "edge" / "x.py"):
        planted.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    words = [{"IN": files, "OUT": tmp_path / "out"}.get(word, word) for word in command]
    process = on_device(changed, *words)
    assert process.returncode == 2
    assert not (tmp_path / "ran").exists()
    assert "4 of its files differ from manifest.json" in process.stderr
    assert "- model/model.bin: changed" in process.stderr
    assert "- numpy.py: not of this bundle\n- runtime/edge/x.py: not of this bundle" in process.stderr
    assert "Copy the bundle again" in process.stderr


def test_what_is_planted_in_the_launcher_s_place_is_named(bundle, tmp_path):
    """Python finds a package before a module, so that a package `edge` is found by running the file alone."""
    changed = shutil.copytree(bundle, tmp_path / "bundle")
    code = f"open({str(tmp_path / 'ran')!r}, 'w')"
    (changed / "runtime.py").write_text(code)
    (changed / "evil.py").write_text(code)
    py_compile.compile(changed / "evil.py", changed / "edge.pyc")
    (changed / "evil.py").unlink()
    process = on_device(changed, "self-test")
    assert process.returncode == 2
    assert "- edge.pyc: not of this bundle\n- runtime.py: not of this bundle" in process.stderr
    (changed / "edge").mkdir()
    for name in ("__init__.py", "__main__.py"):
        (changed / "edge" / name).write_text(code)
    process = on_device(changed, "self-test", launcher=["edge.py"])
    assert process.returncode == 2
    assert "- edge: not of this bundle\n- edge.pyc" in process.stderr
    assert not (tmp_path / "ran").exists()


def test_python_s_compiled_files_are_no_tampering(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    for _ in range(2):
        process = on_device(tmp_path / "bundle", "self-test", compiled_files=True)
        assert process.returncode == 0, process.stderr
    assert list((tmp_path / "bundle" / "runtime" / "edge" / "__pycache__").iterdir())


def test_a_machine_that_scores_otherwise_fails_the_self_test(bundle, tmp_path):
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["self_test"]["raw_score"] += 0.01
    (changed / "manifest.json").write_text(json.dumps(manifest))
    process = on_device(changed, "self-test")
    assert process.returncode == 2
    assert "Do not use the scores of this machine" in process.stderr


def test_a_large_image(bundle, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 5000), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png", compress_level=0)
    process = on_device(bundle, "run", tmp_path / "large.png", "--output", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    (heatmap,) = (tmp_path / "out" / "heatmaps").iterdir()
    width, height = Image.open(heatmap).size
    assert width == 1024
    assert 819 < height < 1024  # the legend is below the image


@pytest.mark.skipif("ANOMALIB_MEDICAL_DATA" not in os.environ, reason="ANOMALIB_MEDICAL_DATA is not set")
def test_without_a_decoder_the_package_to_install_is_named(bundle, tmp_path):
    folder = Path(os.environ["ANOMALIB_MEDICAL_DATA"]) / "formats" / "dicom"
    source = folder / "MR_small_jp2klossless.dcm"
    process = on_device(
        bundle, "run", source, "--output", tmp_path / "out", missing=(*MISSING, "openjpeg", "pylibjpeg")
    )
    assert process.returncode == 1
    (failure,) = rows_of(tmp_path / "out", "failed")
    assert "whose decoder is not installed" in failure["reason"]
    assert "pip install pylibjpeg pylibjpeg-openjpeg" in failure["reason"]


@pytest.mark.parametrize(("package", "command"), [("highdicom", ["run", "--dicom"]), ("filelock", ["watch"])])
def test_a_package_of_the_runtime_that_is_missing_is_named(bundle, files, tmp_path, package, command):
    words = [*command, files, "--output", tmp_path / "out"]
    process = on_device(bundle, *words, missing=(*MISSING, package))
    assert process.returncode == 2
    assert f"The package {package} is not installed: pip install -r requirements.txt" in process.stderr
    assert "Traceback" not in process.stderr


def test_ctrl_c_keeps_what_was_done(bundle, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(400):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    output = tmp_path / "out"
    # What is started in the background ignores Ctrl-C, and so do the processes that it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "run", str(folder), "--output", str(output)],
        cwd=bundle,
        env=device_environment(bundle.parent / "site"),
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (
        (output / "predictions.csv").exists() and len((output / "predictions.csv").read_text().splitlines()) > 3
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped. What was finished is in the output folder." in log
    assert "Traceback" not in log
    rows = rows_of(output)
    assert 3 <= len(rows) < 400
    assert all((output / "heatmaps" / f"{row['image']}.png").exists() for row in rows)


def test_a_killed_part_goes_on_and_no_other_process_is_let_at_it(bundle, tmp_path):
    """Killed at any time, no row is lost, and none is there twice; the lock goes with its process."""
    for number in range(300):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:03}.png")
    (tmp_path / "list.txt").write_text("".join(f"{number:03}.png\n" for number in range(300)))
    output = tmp_path / "out"
    arguments = (
        "run",
        tmp_path / "list.txt",
        "--output",
        output,
        "--part",
        2,
        "--parts",
        2,
        "--resume",
        "--no-heatmaps",
    )
    table = output / "predictions_part-2-of-2.csv"
    for rows in (5, 60):
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", *map(str, arguments)],
            cwd=bundle,
            env=device_environment(bundle.parent / "site"),
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and not (table.exists() and table.read_text().count("\n") > rows):
                time.sleep(0.005)
            if rows == 5:
                process.send_signal(signal.SIGSTOP)
                second = on_device(bundle, *arguments)
                assert second.returncode == 2
                assert f"Another process is at part 2 of 2 in {output}: wait for its end" in second.stderr
        finally:
            process.kill()
            process.wait()
        assert table.read_text().count("\n") < 151
    assert on_device(bundle, *arguments).returncode == 0
    assert on_device(bundle, *arguments[:5], 1, *arguments[6:]).returncode == 0
    paths = [row["path"] for number in (1, 2) for row in rows_of(output, f"predictions_part-{number}-of-2")]
    assert paths == [str(tmp_path / f"{number:03}.png") for number in range(300)]
    lines = table.with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == paths[150:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing", "--output", "out"], "There is no file or folder missing."),
        (["run", "model", "--output", "out"], "There is no image in model"),
        (["run", "self_test", "--output", "out", "--limit", "0"], "got 0, expected 1 or more"),
        (
            ["run", "self_test", "--output", "out", "--part", "3", "--parts", "2"],
            "Got part 3 of 2, expected a part from 1",
        ),
        (
            ["run", "self_test", "--output", "out", "--part", "0", "--parts", "2"],
            "Got part 0 of 2, expected a part from 1",
        ),
        (["run", "self_test", "--output", "out", "--resume"], "expected --part K --parts N, with or without --resume"),
        (["run", "self_test", "self_test", "--output", "out"], "its files would be scored twice"),
        (["run", ".", "--output", "out", "--part", "1", "--parts", "2"], "The output out lies in .: heatmaps"),
        (["support", "self_test"], "only D24fad binds one"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(bundle, arguments, message):
    process = on_device(bundle, *arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert not (bundle / "out").exists()


@pytest.mark.parametrize("command", ["run", "watch", "support", "self-test"])
def test_help_explains(bundle, command):
    process = on_device(bundle, command, "--help")
    assert process.returncode == 0
    assert "Exit status" in process.stdout
