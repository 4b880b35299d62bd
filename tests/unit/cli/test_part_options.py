"""`predict --part`: what is no part is refused, and what parts must share tells different scores apart."""

import pytest

from anomalib_medical.cli.part_options import make_part, one_device, part_of
from anomalib_medical.errors import MedicalError

OPTIONS = {
    "part": 1,
    "parts": 2,
    "resume": False,
    "window": None,
    "axis": "axial",
    "slice_range": (0.0, 1.0),
    "ckpt_path": None,
    "model": {"class_path": "Scrd"},
    "default_root_dir": "out",
}


def test_without_a_part_all_is_predicted():
    assert part_of(OPTIONS | {"part": None, "parts": None}) is None


@pytest.mark.parametrize("change", [{"part": None}, {"parts": None}, {"part": None, "parts": None, "resume": True}])
def test_half_a_part_is_refused(change):
    with pytest.raises(MedicalError, match="expected --part K --parts N, with or without --resume"):
        part_of(OPTIONS | change)


def test_only_files_can_be_divided():
    with pytest.raises(MedicalError, match="--part divides files: expected a folder or a list of files as --data"):
        make_part(OPTIONS, object())


def test_parts_share_what_scores_depend_on(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "model.ckpt").write_text("weights")
    changes = [{}, {"window": "bone"}, {"axis": "coronal"}, {"ckpt_path": tmp_path / "model.ckpt"}, {"model": "Ddad"}]
    digests = [make_part(OPTIONS | change, tmp_path).model for change in changes]
    assert len(set(digests)) == len(changes)
    assert make_part(OPTIONS | {"part": 2, "resume": True}, tmp_path).model == digests[0]


@pytest.mark.parametrize(("devices", "expected"), [("auto", 1), (1, 1), ("1", "1"), ([3], [3])])
def test_a_part_takes_one_device(devices, expected):
    assert one_device(devices) == expected


@pytest.mark.parametrize("devices", [2, -1, "2", [0, 1]])
def test_several_devices_are_refused(devices):
    with pytest.raises(MedicalError, match="for a part, expected one: divide into more parts"):
        one_device(devices)
