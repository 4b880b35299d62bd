"""`serve` with a real archive: each series once, and every result in the archive, whatever is killed meanwhile."""

import csv
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anomalib_medical.edge.serve import service as service_module
from tests.helpers import orthanc as orthanc_module
from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.edge_bundles import device_environment
from tests.helpers.orthanc import PASSWORD, PLUGIN, PROGRAM, USER, Orthanc, free_port

NAME, PATIENT, ROOT_UID = "DOE^JANE", "4711-0815", "1.2.826.0.1.3680043.8.498.7750"
LUA = Path(service_module.__file__).with_name("orthanc.lua")
needs_orthanc = pytest.mark.skipif(PROGRAM is None or not PLUGIN.exists(), reason=orthanc_module.MISSING)


@pytest.fixture(scope="module")
def bundle(scrd):
    return scrd[1]


def write_study(folder, number, slices=2):
    """A study of a series."""
    uid = f"{ROOT_UID}.{number}"
    who = {"PatientName": NAME, "PatientID": f"{PATIENT}-{number}", "PatientSex": "F", "PatientBirthDate": "19700101"}
    what = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "SeriesDescription": "Chest axial"}
    when = {"StudyDate": f"{datetime.now():%Y%m%d}", "StudyTime": "101010", "AccessionNumber": "1", "StudyID": "1"}
    files = []
    for index in range(slices):
        pixels = np.random.default_rng(1000 * number + index).integers(0, 256, (64, 64), np.uint8)
        place = {"ImagePositionPatient": [0, 0, float(index)], "InstanceNumber": index + 1, "SeriesNumber": 1}
        tags = PLACE | who | what | when | place | {"SOPInstanceUID": f"{uid}.1.{index}", "Manufacturer": "ACME"}
        files.append(write_dicom(folder / f"{number}_{index}.dcm", pixels, ReferringPhysicianName="X", **tags))
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
