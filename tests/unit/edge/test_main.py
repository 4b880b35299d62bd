"""The options of the command line that other tests do not run."""

import logging
import signal
import warnings

import pytest

from anomalib_medical.edge.dicom_objects import KINDS
from anomalib_medical.edge.main import _KINDS, _parser, _wanted, main


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    """Undo what the command does to its process: levels of loggers, warnings and the signal to stop."""
    levels = {name: logging.getLogger(name).level for name in ("PIL", "highdicom", "nibabel", "pydicom", "tifffile")}
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ()),
        (["--dicom"], KINDS),
        (["--dicom-objects", "segmentation,report"], ("segmentation", "report")),
        (["--dicom", "--dicom-objects", "map"], ("map",)),
    ],
)
def test_kinds_of_dicom_objects(words, expected):
    assert _wanted(_parser().parse_args(["run", "in", "--output", "out", *words])) == expected
    assert _KINDS == KINDS


@pytest.mark.parametrize("word", ["", "picture", "segmentation;report", "map,"])
def test_what_is_no_kind_is_refused(word, capsys):
    if word == "map,":
        assert _parser().parse_args(["run", "in", "--output", "o", "--dicom-objects", word]).dicom_objects == ("map",)
        return
    with pytest.raises(SystemExit):
        _parser().parse_args(["run", "in", "--output", "out", "--dicom-objects", word])
    assert "expected some of capture,segmentation,map,report, with commas between them" in capsys.readouterr().err


def test_parts_make_no_objects_of_half_a_series(tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(b"no image")
    words = [
        "run",
        str(tmp_path / "a.png"),
        "--output",
        str(tmp_path / "out"),
        "--part",
        "1",
        "--parts",
        "2",
        "--dicom",
    ]
    assert main(tmp_path, words) == 2
    assert "--dicom makes one object of each kind a series, and a series may lie in several parts" in caplog.text
