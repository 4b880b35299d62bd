"""Which images a bundle is measured on and calibrated with: of a folder, or of a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.deploy.measure import open_normals, open_test_data
from anomalib_medical.edge.manifest import Reading

ROWS = """path,label,patient,split,mask
a.png,normal,p1,train,
b.png,normal,p2,train,
c.png,normal,p3,val,
d.png,normal,p4,test,
e.png,abnormal,p5,test,m.png
f.png,,p6,unlabeled,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for value, name in enumerate("abcdefm"):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "lists").mkdir()
    for folder in (tmp_path, tmp_path / "lists"):
        (folder / "scans.csv").write_text(ROWS)
    return tmp_path


def names(data) -> list[str]:
    return [Path(path).stem for path in data.samples.image_path]


@pytest.mark.parametrize(("folder", "explicit"), [("", False), ("lists", True)])
def test_a_manifest(root: Path, folder: str, explicit: bool) -> None:
    manifest, images = root / folder / "scans.csv", root if explicit else None
    data = open_test_data(manifest, Reading(), images, patient_pattern=None)
    assert names(data.test_data) == ["d", "e"]
    assert data.name == "scans"
    normals = open_normals(manifest, Reading(), images)
    assert names(normals) == ["a", "b", "c"]
    assert [float(normals[index].image.max()) for index in range(3)] == pytest.approx([0, 1 / 255, 2 / 255])


def test_masks_are_read_by_the_labels_that_were_chosen(root: Path) -> None:
    data = open_test_data(root / "scans.csv", Reading(), mask_labels=[6])
    assert [int(item.gt_mask.sum()) for item in data.test_data] == [0, 64]
    with pytest.raises(ValueError, match="mask_labels names 2, which no mask holds: they hold 6"):
        open_test_data(root / "scans.csv", Reading(), mask_labels=[2])


def test_a_folder_and_a_file_of_normals(root: Path) -> None:
    assert len(open_normals(root, Reading())) == 7
    assert len(open_normals(root / "a.png", Reading())) == 1
