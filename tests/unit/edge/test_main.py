"""The options of the command line that other tests do not run."""

import logging
import signal
import warnings

import pytest

from anomalib_medical.edge.dicom_objects import KINDS
from anomalib_medical.edge.main import _KINDS, _QUOTING, _parser, _wanted, main


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    """Undo what the command does to its process: levels of loggers, warnings and the signal to stop."""
    levels = {name: logging.getLogger(name).level for name in _QUOTING}
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of the arguments --dicomweb --pull --scp --mercure is required"),
        (["--pull", "--scp", "0"], "not allowed with argument"),
        (["--scp", "104x"], "got '104x', expected [HOST:]PORT"),
        (["--http", "host", "--pull"], "got 'host', expected [HOST:]PORT"),
        (["--scp", "0"], "serve: expected --output FOLDER"),
        (["--pull", "--output", "OUT"], "The archive's address: expected http(s)://HOST"),
        (["--scp", "0", "--output", "OUT", "--settings", "none.yaml"], "There is no file none.yaml of settings"),
    ],
)
def test_what_does_not_fit_together_in_serve(tmp_path, words, said, capsys, caplog):
    try:
        status = main(tmp_path, ["serve", *(str(tmp_path) if word == "OUT" else word for word in words)])
    except SystemExit as exit_of_parser:
        status = exit_of_parser.code
    assert status == 2
    assert said in capsys.readouterr().err + caplog.text
