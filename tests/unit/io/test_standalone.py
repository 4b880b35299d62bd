"""The reading code runs from a copy of its folder, where torch, anomalib and this package cannot be imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical import io
from anomalib_medical.data.images import read_image
from tests.helpers.dicom_files import write_dicom
from tests.helpers.nifti_files import AFFINE, VOLUME, save_nifti

SCRIPT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name, name=name.partition(".")[0])

sys.meta_path.insert(0, Missing())
import numpy as np
from runtime import io

try:
    np.savez("out.npz", *[io.read_pixels(path) for path in sys.argv[1:]])
except io.ImageReadError as error:
    open("error.txt", "w").write(str(error))
"""
NEVER = {"torch", "torchvision", "anomalib", "anomalib_medical", "lightning", "pandas", "cv2"}


def read_there(folder, paths, missing):
    shutil.copytree(Path(io.__file__).parent, folder / "runtime" / "io", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "runtime" / "__init__.py").touch()
    (folder / "script.py").write_text(SCRIPT.format(missing=missing))
    command = [sys.executable, "script.py", *map(str, paths)]
    subprocess.run(command, cwd=folder, check=True, timeout=60, env={"PATH": ""})


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 31, 3), np.uint8)).save(tmp_path / "colour.png")
    write_dicom(tmp_path / "ct.dcm", rng.integers(-1000, 1000, (17, 23)).astype(np.int16), RescaleSlope=2)
    save_nifti(tmp_path / "brain.nii.gz", VOLUME, AFFINE)
    return [tmp_path / "colour.png", tmp_path / "ct.dcm", f"{tmp_path / 'brain.nii.gz'}#axial=2"]


def test_a_copy_reads_what_training_reads(files, tmp_path):
    read_there(tmp_path, files, NEVER)
    with np.load(tmp_path / "out.npz") as results:
        for path, pixels in zip(files, results.values(), strict=True):
            colours = np.stack([pixels] * 3) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            np.testing.assert_array_equal(colours, read_image(path).numpy())


def test_without_nibabel_only_nifti_is_refused(files, tmp_path):
    read_there(tmp_path, files[:2], NEVER | {"nibabel"})
    assert (tmp_path / "out.npz").exists()
    shutil.rmtree(tmp_path / "runtime")
    read_there(tmp_path, files[2:], NEVER | {"nibabel"})
    assert "Install it with: pip install nibabel" in (tmp_path / "error.txt").read_text()
