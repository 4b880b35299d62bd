"""mercure's contract."""

import json

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.edge.serve import mercure
from tests.helpers.serving import UID, WHO, Processor, slice_of


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"MERCURE_{name.upper()}_DIR", str(tmp_path / name))
    return tmp_path / "in", tmp_path / "out"


def make(output, written):
    return SeriesScorer(Processor(output, written), PostProcessing(), output, volumes=False, dicom=None)


def fill(source, *slices, **tags):
    """As mercure names files: series, #, instance."""
    for study, index in slices:
        (source / f"{UID}.{study}.1#{index}.dcm").write_bytes(slice_of(study, index, **tags))
    (source / "task.json").write_text("{}")


def test_objects_and_result(folders):
    source, target = folders
    fill(source, (1, 0), (1, 1), (2, 0))
    assert mercure.run(make) == 0
    assert len(list(target.glob("*.dcm"))) == 3
    text = (target / "result.json").read_text()
    result = json.loads(text)
    assert [(each["slices"], each["raw_score"]) for each in result["series"]] == [(2, 0.5), (1, 0.5)]
    assert result["__mercure_notification"] == {"text": "0 of 2 series abnormal (research only)", "requested": False}
    assert not any(each in text for each in (UID, *WHO.values()))


def test_a_file_that_cannot_be_read_is_an_error_of_the_task(folders):
    source, target = folders
    fill(source, (1, 0))
    fill(source, (1, 1), ImageComments="DAMAGED")
    assert mercure.run(make) == 1
    assert json.loads((target / "result.json").read_text())["unreadable"] == 1


@pytest.mark.usefixtures("folders")
def test_what_mercure_does_not_give(monkeypatch):
    with pytest.raises(EdgeError, match=r"no \*\.dcm in MERCURE_IN_DIR"):
        mercure.run(make)
    monkeypatch.delenv("MERCURE_OUT_DIR")
    with pytest.raises(EdgeError, match="MERCURE_OUT_DIR names no folder"):
        mercure.run(make)
