"""The log as JSON lines."""

import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from anomalib_medical.edge import logs
from anomalib_medical.edge.logs import JsonLines


def test_a_record_is_a_line_of_json():
    record = logging.LogRecord("edge", logging.WARNING, "file.py", 1, "%s: %d\nlines", ("abc", 2), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    content = json.loads(line)
    assert (content["level"], content["message"]) == ("warning", "abc: 2\nlines")
    assert datetime.fromisoformat(content["time"]).timestamp() == pytest.approx(record.created, abs=1e-3)
    assert content.keys() == {"time", "level", "message"}


@pytest.mark.parametrize("where", ["here()", "threading.Thread(target=here).start()"])
def test_of_an_error_that_nobody_foresaw_its_kind_and_place_are_told_and_not_its_words(where):
    code = f"""
import threading
import sys
sys.path.insert(0, {str(Path(logs.__file__).parent)!r})  # without what the package itself imports
from logs import start_log
def here():
    raise ValueError("DOE^JANE")
start_log("json")
{where}
"""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    ).stderr
    (line,) = found.splitlines()
    assert json.loads(line)["level"] == "critical"
    assert json.loads(line)["error"] == "ValueError in here, <string>:7"
    assert "DOE" not in found
