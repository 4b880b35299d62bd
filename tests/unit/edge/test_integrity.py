"""What somebody put into a bundle is found; what Python, the system and the user leave there is not taken for that."""

import os
import py_compile
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.integrity import additions, check_scores
from anomalib_medical.edge.manifest import Manifest

OWN = {"README.md", "edge.py", "runtime/__init__.py", "runtime/edge/run.py", "runtime/io/dicom.py", "model/model.xml"}


@pytest.fixture
def bundle(tmp_path):
    for name in OWN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("answer = 42\n")
    return tmp_path


def write(bundle, name, text=""):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text(text)


def test_what_is_made_in_the_bundle_s_folder_is_none_of_its_business(bundle):
    py_compile.compile(bundle / "runtime" / "edge" / "run.py")
    for name in (
        "out/predictions.csv",
        "wheels/numpy.whl",
        "venv/lib/numpy/__init__.py",
        "log.txt",
        ".git/hooks.py",
        "support/a.png",
    ):
        write(bundle, name)
    for name in ("runtime/.DS_Store", "runtime/edge/__pycache__/run.cpython-39.opt-2.pyc"):
        write(bundle, name)
    assert additions(bundle, OWN) == []


@pytest.mark.parametrize(
    "name",
    [
        "runtime/edge/x.py",
        "runtime/edge/numpy/__init__.py",
        "runtime/edge/run.so",
        "runtime/io/x.pyc",
        "runtime/edge/__pycache__/evil.cpython-311.pyc",
        "runtime/edge/__pycache__/run.py",
        "model/model.onnx",
        "numpy.py",
        "numpy.so",
        "edge.pyc",
        "edge.so",
        "runtime.py",
    ],
)
def test_what_was_added_is_named(bundle, name):
    write(bundle, name)
    assert additions(bundle, OWN) == [f"{name}: not of this bundle"]


@pytest.mark.parametrize("name", ["numpy/__init__.py", "edge/__init__.py", "edge/__init__.pyc", "edge/__init__.so"])
def test_a_package_beside_the_runtime_is_named(bundle, name):
    """Python takes a package `edge` rather than `edge.py`; a bundle of 0.1.0 that was here before leaves one behind."""
    write(bundle, name)
    assert additions(bundle, OWN) == [f"{name.partition('/')[0]}: not of this bundle"]


def test_a_linked_folder_is_named(bundle):
    (bundle / "runtime" / "io2").symlink_to(bundle / "model", target_is_directory=True)
    assert additions(bundle, OWN) == ["runtime/io2: not of this bundle"]


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.TIMESTAMP, py_compile.PycInvalidationMode.UNCHECKED_HASH]
)
def test_a_compiled_file_of_another_program_is_named(bundle, mode):
    source = bundle / "runtime" / "edge" / "run.py"
    times = source.stat().st_atime, source.stat().st_mtime
    source.write_text("answer = 43\n")
    os.utime(source, times)
    py_compile.compile(source, invalidation_mode=mode)
    source.write_text("answer = 42\n")
    os.utime(source, times)
    assert additions(bundle, OWN) == ["runtime/edge/run.py: its compiled file is of another program"]


def test_a_compiled_file_that_python_would_make_anew_is_not(bundle):
    source = bundle / "runtime" / "edge" / "run.py"
    source.write_text("answer = 4\n")
    py_compile.compile(source)
    source.write_text("answer = 42\n")  # of another size
    assert additions(bundle, OWN) == []
    Path(cache_from_source(source)).write_bytes(b"cut off")
    assert additions(bundle, OWN) == []


def test_another_threshold_than_the_bundle_was_made_with_is_found(scrd):
    _, bundle = scrd
    manifest = Manifest.read(bundle)
    assert "off by" in check_scores(bundle, manifest)
    processing = manifest.post_processing
    for changed in (
        replace(processing, image=replace(processing.image, threshold=processing.image.threshold + 0.01)),
        replace(processing, normalization="linear"),
    ):
        with pytest.raises(EdgeError, match=r"is normalised to .* by the thresholds in manifest.json, expected"):
            check_scores(bundle, replace(manifest, post_processing=changed))
