"""The runtime in operation: logs that name nobody, what it answers when asked how it is, and how it ends."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.edge_bundles import device_environment, on_device
from tests.helpers.orthanc import free_port

NAME, PATIENT, BIRTH, STUDY_DATE, UID = (
    "DOE^JANE",
    "4711-0815",
    "19700203",
    "20250714",
    "1.2.826.0.1.3680043.8.498.7760",
)
PRIVATE = (NAME, "DOE", "JANE", "Jane", PATIENT, BIRTH, STUDY_DATE, UID, "ACC-99", "Prof. Octopus", "scan-of-jane")
PATIENCE = 60


@pytest.fixture
def files(tmp_path):
    """Two slices, a report, a file that is cut off and one that is no image, all of one patient."""
    folder = tmp_path / "in"
    tags = PLACE | {
        "PatientName": NAME,
        "PatientID": PATIENT,
        "PatientBirthDate": BIRTH,
        "StudyDate": STUDY_DATE,
        "AccessionNumber": "ACC-99",
        "ReferringPhysicianName": "Prof. Octopus",
        "StudyInstanceUID": UID,
        "SeriesInstanceUID": f"{UID}.1",
        "Manufacturer": "ACME",
    }
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    for index in range(2):
        own = {"SOPInstanceUID": f"{UID}.1.{index}", "ImagePositionPatient": [0, 0, index]}
        write_dicom(folder / f"scan-of-jane {index}.dcm", pixels[index], **(tags | own))
    content = (folder / "scan-of-jane 0.dcm").read_bytes()
    (folder / "scan-of-jane cut.dcm").write_bytes(content[: len(content) // 2])
    (folder / "scan-of-jane.png").write_bytes(b"no image of DOE^JANE")
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Rows": None, "Columns": None, "PixelData": None}
    write_dicom(folder / "scan-of-jane report.dcm", pixels[2], **(tags | report))
    return folder


def lines_of(log):
    """The lines of a log, each of which is JSON, and none of which says whose images were scored."""
    found = [private for private in PRIVATE if private in log]
    assert not found, log
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines
    assert all(line.keys() >= {"time", "level", "message"} for line in lines)
    return [line["message"] for line in lines]


@contextmanager
def running(bundle, folder, *arguments):
    """A command, and where its log goes; killed at the end of the block if it has not ended."""
    log = folder / "log.txt"
    with log.open("w") as file:
        environment = device_environment(bundle.parent / "site")
        command = [sys.executable, "-m", "edge", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=bundle, env=environment, stdout=subprocess.DEVNULL, stderr=file)
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def ask(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_the_log_of_run_names_nobody(bundle, files, tmp_path):
    process = on_device(bundle, "run", files, "--output", tmp_path / "out", "--dicom", "--log-format", "json")
    assert process.returncode == 1
    messages = lines_of(process.stderr)
    assert any("2 images of" in message for message in messages)
    assert any("could not be read" in message for message in messages)


def test_the_log_of_watch_names_nobody_and_the_series_under_way_is_finished(bundle, files, tmp_path):
    drop, output = tmp_path / "drop", tmp_path / "out"
    files.rename(drop)
    words = ("watch", drop, "--output", output, "--dicom", "--settle", "0.2", "--keep", "30d", "--log-format", "json")
    with running(bundle, tmp_path, *words) as (process, log):
        wait_until(lambda: len(list(drop.glob("[!.]*"))) == 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        messages = lines_of(log.read_text())
    assert messages[-1] == "Stopped. What was under way is finished."
    assert len(list((output / "processed").iterdir())) == 2


def test_serve_says_how_it_is_and_ends_when_the_series_under_way_is_done(bundle, files, tmp_path):
    """Files are put where a receiver puts them; a series of many slices is under way when it is asked to end."""
    from pynetdicom import AE
    from pynetdicom.sop_class import CTImageStorage

    output, port, http, slices = tmp_path / "out", free_port(), free_port(), 60
    (tmp_path / "settings.yaml").write_text("receiver: {quiet: 0.5}\n")
    words = ("serve", "--scp", port, "--http", http, "--settings", tmp_path / "settings.yaml", "--output", output)
    with running(bundle, tmp_path, *words, "--log-format", "json") as (process, log):
        wait_until(lambda: ask(http, "/healthz") == (200, "ok\n"))
        assert ask(http, "/readyz") == (200, "ok\n")
        entity = AE(ae_title="SCANNER")
        entity.add_requested_context(CTImageStorage)
        link = entity.associate("127.0.0.1", port)
        first = next(files.glob("*0.dcm"))
        for number in range(slices):
            name = {"SOPInstanceUID": f"{UID}.1.{number}", "SeriesInstanceUID": f"{UID}.1", "StudyInstanceUID": UID}
            pixels = np.random.default_rng(number).integers(0, 256, (400, 400), np.uint8)
            path = write_dicom(first, pixels, **(PLACE | name | {"ImagePositionPatient": [0, 0, number]}))
            assert link.send_c_store(path).Status == 0
        link.release()
        wait_until(lambda: list((output / "heatmaps").glob("*.png")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        messages = lines_of(log.read_text())
        assert any(f"{slices} instances scored" in message for message in messages)
        assert messages[-1] == "Stopped. What was under way is finished, or in the queue."
    assert not list((output / "queue").iterdir())
    with running(bundle, tmp_path, *words, "--log-format", "json"):
        wait_until(lambda: ask(http, "/metrics")[0] == 200)
        text = ask(http, "/metrics")[1]
        found = dict(re.findall(r"^(anomed_\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE))
        assert float(found["anomed_studies_total"]) == float(found['anomed_series{state="done"}']) == 1
        assert float(found["anomed_files_total"]) == slices
        assert 'anomed_drift_share{of="image",where="above_threshold"}' in found
        assert not [private for private in PRIVATE if private in text]
