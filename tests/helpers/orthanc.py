"""Debian's Orthanc on this machine, started with a configuration of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from base64 import b64encode
from pathlib import Path

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAM = shutil.which("Orthanc") or next((path for path in ("/usr/sbin/Orthanc",) if Path(path).exists()), None)
MISSING = "no Orthanc with its DICOMweb plug-in: apt-get install orthanc orthanc-dicomweb"
USER, PASSWORD = "edge", "secret of the archive"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Orthanc:
    """An archive in a folder, on loopback; it can be killed and started again.

    Attributes:
        url: Its DICOMweb services.
        dicom_port: For C-STORE.
    """

    def __init__(self, folder: Path, *, scripts: tuple[Path, ...] = (), environment: dict[str, str] | None = None):
        self.folder = folder
        self._environment = dict(os.environ) | (environment or {})
        self.port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/dicom-web"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "StableAge": 1,
            "LuaScripts": [str(path) for path in scripts],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), str(self.folder / "orthanc.json")], stdout=log, stderr=log, env=self._environment
            )
        end = time.monotonic() + 60
        while True:
            try:
                self.get("/system")
            except OSError:
                assert self._process.poll() is None, (self.folder / "log.txt").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def get(self, path: str, body: bytes | None = None) -> object:
        """Ask its own interface; with a body, POST."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        request.add_header("Authorization", "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode())
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - of http alone
            return json.loads(answer.read() or b"null")

    def add(self, *files: Path) -> None:
        """Store files."""
        for file in files:
            self.get("/instances", file.read_bytes())

    def series(self) -> list[dict[str, str]]:
        """List what it says of each of its series, and how many instances each has."""
        return [
            each["MainDicomTags"] | {"instances": str(len(each["Instances"])), "study": each["ParentStudy"]}
            for each in self.get("/series?expand")  # type: ignore[attr-defined]
        ]
