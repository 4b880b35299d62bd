"""`serve` with a real archive: each series once, and every result in the archive, whatever is killed meanwhile."""

import csv
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage

from anomalib_medical.edge.serve import service as service_module
from tests.helpers import orthanc as orthanc_module
from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.edge_bundles import MISSING, device_environment, on_device
from tests.helpers.orthanc import PASSWORD, PLUGIN, PROGRAM, USER, Orthanc, free_port

NAME, PATIENT, ROOT_UID = "DOE^JANE", "4711-0815", "1.2.826.0.1.3680043.8.498.7750"
LUA = Path(service_module.__file__).with_name("orthanc.lua")
needs_orthanc = pytest.mark.skipif(PROGRAM is None or not PLUGIN.exists(), reason=orthanc_module.MISSING)


def write_study(folder, number, slices=2, **changed):
    """A study of a series."""
    uid = f"{ROOT_UID}.{number}"
    who = {"PatientName": NAME, "PatientID": f"{PATIENT}-{number}", "PatientSex": "F", "PatientBirthDate": "19700101"}
    what = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "SeriesDescription": "Chest axial"}
    when = {"StudyDate": f"{datetime.now():%Y%m%d}", "StudyTime": "101010", "AccessionNumber": "1"}
    when |= {"StudyID": "1", "ReferringPhysicianName": "X"}
    files = []
    for index in range(slices):
        pixels = np.random.default_rng(1000 * number + index).integers(0, 256, (64, 64), np.uint8)
        place = {"ImagePositionPatient": [0, 0, float(index)], "InstanceNumber": index + 1, "SeriesNumber": 1}
        tags = PLACE | who | what | when | place | {"SOPInstanceUID": f"{uid}.1.{index}", "Manufacturer": "ACME"}
        files.append(write_dicom(folder / f"{number}_{index}.dcm", pixels, **(tags | changed)))
    return files


class Serving:
    """The command, which can be killed and started again; its log goes to a file beside the output."""

    def __init__(self, bundle, output, *arguments):
        self.output = output
        self._bundle = bundle
        self._arguments = [str(each) for each in arguments]
        self._process = None

    def start(self):
        command = [sys.executable, "-m", "edge", "serve", *self._arguments, "--output", str(self.output)]
        with (self.output.parent / "log.txt").open("a") as log:
            environment = device_environment(self._bundle.parent / "site")
            self._process = subprocess.Popen(command, cwd=self._bundle, env=environment, stdout=log, stderr=log)

    def kill(self, how=signal.SIGKILL):
        self._process.send_signal(how)
        return self._process.wait(60)

    def is_running(self):
        return self._process.poll() is None

    @property
    def log(self):
        return (self.output.parent / "log.txt").read_text()


@contextmanager
def everything(archive, serving):
    """Both, and neither afterwards."""
    archive.start()
    try:
        serving.start()
        yield
    finally:
        if serving.is_running():
            serving.kill()
        archive.kill()


def wait_until(condition, patience):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def rows_of(output, name="predictions"):
    with (output / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def modalities(archive):
    """How many series of each modality, and how many instances, the archive has; empty while it is down."""
    try:
        series = archive.series()
    except OSError:
        return {}
    found = {}
    for each in series:
        count, instances = found.get(each["Modality"], (0, 0))
        found[each["Modality"]] = (count + 1, instances + int(each["instances"]))
    return found


def assert_each_once(archive, serving, studies):
    """All results are in the archive, and what was scored was scored once."""
    reports = [each["study"] for each in archive.series() if each["Modality"] == "SR"]
    assert len(reports) == len(set(reports)) == studies
    assert modalities(archive)["SR"] == (studies, studies)
    rows = rows_of(serving.output)
    assert len(rows) == len({row["image"] for row in rows}) == 2 * studies
    assert len(rows_of(serving.output, "series")) == studies
    assert not rows_of(serving.output, "failed")
    for name in ("queue", "dicom", "incoming"):
        assert not list((serving.output / name).iterdir())
    for private in (NAME, "JANE", PATIENT, ROOT_UID, PASSWORD):
        assert private not in serving.log


def settings_file(folder, text):
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "settings.yaml").write_text(text)
    return folder / "settings.yaml"


@pytest.mark.slow
@needs_orthanc
@pytest.mark.parametrize("studies", [20, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(1200)])])
def test_each_series_once_through_kills_of_both_sides(bundle, tmp_path, studies):
    """Studies arrive while the archive and the service are killed with -9 at random moments."""
    http = free_port()
    archive = Orthanc(tmp_path / "orthanc", scripts=(LUA,), environment={"ANOMED_SERVE": f"http://127.0.0.1:{http}"})
    settings = settings_file(
        tmp_path,
        f"dicomweb: {{user: {USER}, password: {{file: {tmp_path / 'password'}}}, poll: 1, quiet: 1}}\n"
        "objects: [capture, segmentation, map, report]\n",
    )
    arguments = ("--dicomweb", archive.url, "--settings", settings, "--http", http)
    serving = Serving(bundle, tmp_path / "out", *arguments)
    files = [file for number in range(studies) for file in write_study(tmp_path / "in", number)]
    start = time.monotonic()

    def send():
        """As a scanner does: again until it is acknowledged."""
        for file in files:
            while True:
                try:
                    archive.add(file)
                    break
                except OSError:
                    time.sleep(0.2)

    random = np.random.default_rng(studies)
    sender = threading.Thread(target=send, daemon=True)
    kills = 3 if studies < 100 else 10
    with everything(archive, serving):
        sender.start()
        for kill in range(kills):
            time.sleep(random.uniform(2.5, 6))
            serving.kill()
            if kill % 2 == 0:
                archive.kill()
            said = serving.log.count("again in")
            serving.start()
            if kill % 2 == 0:
                wait_until(lambda said=said: serving.log.count("again in") > said, 60)
                archive.start()
        sender.join(300)
        wait_until(lambda: modalities(archive).get("SR", (0,))[0] >= studies, 60 + 3 * studies)
        taken = time.monotonic() - start
        # Our own results are new series, and the service was told of them: enough searches to take them for others'.
        time.sleep(4)
        wait_until(lambda: not list((serving.output / "dicom").iterdir()), 30)
        assert_each_once(archive, serving, studies)
        found = modalities(archive)
        print(f"\n{studies} studies of 2 slices, {kills} kills of the service, {(kills + 1) // 2} of the archive")
        print(f"{'modality':10}{'series':>8}{'instances':>11}")
        for name, (series, instances) in sorted(found.items()):
            print(f"{name:10}{series:8}{instances:11}")
        print(f"{taken:.0f} s, of which the archive was waited for {serving.log.count('again in')} times")
        assert found["CT"] == (studies, 2 * studies)
        assert found["OT"][1] >= 2 * studies  # captures and maps
        assert serving.kill(signal.SIGTERM) == 0


@pytest.mark.slow
@needs_orthanc
def test_orthanc_tells_of_a_stable_study(bundle, tmp_path):
    http = free_port()
    told = {"ANOMED_SERVE": f"http://127.0.0.1:{http}", "ANOMED_TOKEN": "told"}
    archive = Orthanc(tmp_path / "orthanc", scripts=(LUA,), environment=told)
    settings = settings_file(
        tmp_path,
        f"dicomweb: {{url: {archive.url}, user: {USER}, password: {{file: {tmp_path / 'password'}}}, poll: 0}}\n"
        f"token: {{file: {tmp_path / 'told'}}}\n",
    )
    (tmp_path / "told").write_text("told\n")
    serving = Serving(bundle, tmp_path / "out", "--pull", "--settings", settings, "--http", http)
    with everything(archive, serving):
        wait_until(lambda: "Serving;" in serving.log, 60)
        archive.add(*write_study(tmp_path / "in", 1))
        wait_until(lambda: modalities(archive).get("SR") == (1, 1), 60)
        wait_until(lambda: not list((serving.output / "dicom").iterdir()), 30)
        assert_each_once(archive, serving, 1)


def receiving(bundle, folder, port, *, peer):
    """The command that receives files, and sends results to an archive's DICOM port."""
    settings = settings_file(
        folder,
        f"receiver: {{title: ANOMED, quiet: 2}}\npeer: {{host: 127.0.0.1, port: {peer}, title: ORTHANC}}\n"
        "series: [{SeriesDescription: '*chest*'}]\n",
    )
    return Serving(bundle, folder / "out", "--scp", port, "--settings", settings, "--review", 0)


def send(port, files):
    """As a scanner does by C-STORE: each again until it is acknowledged."""
    entity = AE(ae_title="SCANNER")
    waiting = list(files)
    while waiting:
        link = entity.associate("127.0.0.1", port, [build_context(CTImageStorage)], ae_title="ANOMED")
        while link.is_established and waiting:
            if link.send_c_store(dcmread(waiting[0])).get("Status") != 0:
                break
            waiting.pop(0)
        if link.is_established:
            link.release()
        time.sleep(0.2 if waiting else 0)


@pytest.mark.slow
@needs_orthanc
def test_files_that_are_sent_by_c_store(bundle, tmp_path):
    """Killed while files come in, and with the archive down when results go out."""
    archive, port, studies = Orthanc(tmp_path / "orthanc"), free_port(), 4
    serving = receiving(bundle, tmp_path, port, peer=archive.dicom_port)
    files = [file for number in range(studies) for file in write_study(tmp_path / "in", number)]
    other = write_study(tmp_path / "in", 90, SeriesDescription="Head")
    with everything(archive, serving):
        wait_until(lambda: "Receiving" in serving.log, 60)
        send(port, files[:3])
        serving.kill()
        archive.kill()
        serving.start()
        send(port, [*files[2:], *other])  # the third comes again
        wait_until(lambda: "peer cannot be reached; results are sent again" in serving.log, 60)
        archive.start()
        wait_until(lambda: modalities(archive).get("SR", (0,))[0] == studies, 60)
        wait_until(lambda: not list((serving.output / "dicom").iterdir()), 30)
        assert_each_once(archive, serving, studies)
        assert "does not fit the conditions" in serving.log
        page = re.findall(r"Open (http://127\.0\.0\.1:\d+/\S+/) in", serving.log)[-1]
        with urllib.request.urlopen(f"{page}worklist") as answer:  # noqa: S310 - of http alone
            assert len(json.load(answer)["items"]) == studies
        other = on_device(bundle, "serve", "--scp", free_port(), "--output", serving.output)
        assert other.returncode == 2
        assert f"Another runtime works on {serving.output}" in other.stderr


def test_mercure_starts_it_as_a_module(bundle, tmp_path):
    write_study(tmp_path / "in", 1)
    (tmp_path / "result").mkdir()
    folders = {"MERCURE_IN_DIR": str(tmp_path / "in"), "MERCURE_OUT_DIR": str(tmp_path / "result")}
    process = on_device(bundle, "serve", "--mercure", "--dicom-objects", "report", variables=folders)
    assert process.returncode == 0, process.stderr
    (report,) = (tmp_path / "result").glob("*.dcm")
    assert dcmread(report).Modality == "SR"
    assert json.loads((tmp_path / "result" / "result.json").read_text())["series"][0]["slices"] == 2
    assert not any(private in process.stderr for private in (NAME, PATIENT, ROOT_UID))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("dicomweb_client", ("--dicomweb", "http://127.0.0.1:1/dicom-web")),
        ("pynetdicom", ("--scp", "0")),
        ("yaml", ("--pull", "--settings", "settings.yaml")),
    ],
)
def test_packages_that_are_not_installed_are_named(bundle, tmp_path, package, arguments):
    process = on_device(bundle, "serve", *arguments, "--output", tmp_path / "out", missing=[*MISSING, package])
    assert process.returncode == 2
    assert f"The package {package} is not installed: pip install -r requirements-serve.txt" in process.stderr
