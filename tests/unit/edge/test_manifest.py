"""The manifest: written, read back, and what it says of bundles that are not as they were made."""

import json
from dataclasses import replace

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.geometry import Step
from anomalib_medical.edge.integrity import differences
from anomalib_medical.edge.manifest import (
    Calibration,
    Manifest,
    ModelFacts,
    PostProcessing,
    Reading,
    SelfTest,
    hash_files,
)


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("read me")
    made = Manifest(
        created="2026-01-02T03:04:05+00:00",
        model=ModelFacts("Scrd", (128, 96), geometry=(Step("resize", (128, 96)), Step("square_pad"))),
        precision="fp32",
        post_processing=PostProcessing("softsign", Calibration(0.3, 0.1, 0.5, 0.5), Calibration(limit=0.5), 0.95),
        reading=Reading(window=(40.0, 80.0), slice_range=(0.2, 0.8), modality="CT"),
        self_test=SelfTest("self_test/image.png", 0.25, 0.4, 1e-4),
        versions={"openvino": "2026.4.1"},
        files=hash_files(tmp_path),
    )
    made.write(tmp_path)
    return tmp_path, made


def change(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_written_is_read_back(bundle):
    folder, made = bundle
    assert Manifest.read(folder) == made
    assert set(made.files) == {"README.md", "model/model.bin"}
    assert differences(made, folder) == []


def test_changed_and_missing_files_are_named(bundle):
    folder, made = bundle
    (folder / "model" / "model.bin").write_bytes(b"Weights")
    (folder / "README.md").unlink()
    (folder / "of_the_user.txt").touch()
    (folder / "model" / "other.bin").touch()
    assert differences(made, folder) == [
        "README.md: missing",
        "model/model.bin: changed",
        "model/other.bin: not of this bundle",
    ]


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(EdgeError, match=r"There is no .*manifest.json.*Give the folder that `anomalib-medical bun"):
        Manifest.read(tmp_path)


def test_a_cut_manifest_is_damaged(bundle):
    folder, _ = bundle
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(EdgeError, match=r"is damaged \(no JSON.*Copy the bundle again"):
        Manifest.read(folder)


def test_a_manifest_of_a_later_format_is_refused(bundle):
    change(bundle[0], format=2)
    with pytest.raises(EdgeError, match="got format 2, expected 1"):
        Manifest.read(bundle[0])


@pytest.mark.parametrize(
    "values",
    [{"model": {}}, {"self_test": None}, {"reading": {"window": [1], "slice_range": [0, 1]}}, {"post_processing": 3}],
)
def test_a_manifest_with_something_missing_is_damaged(bundle, values):
    change(bundle[0], **values)
    with pytest.raises(EdgeError, match="is damaged"):
        Manifest.read(bundle[0])


def test_a_bundle_of_the_first_version_says_nothing_of_places(bundle):
    folder, made = bundle
    model = json.loads((folder / "manifest.json").read_text())["model"]
    del model["geometry"]
    change(folder, model=model)
    assert Manifest.read(folder).model == replace(made.model, geometry=())


def test_an_unknown_step_is_not_guessed(bundle):
    folder, _ = bundle
    model = json.loads((folder / "manifest.json").read_text())["model"]
    change(folder, model=model | {"geometry": [{"kind": "rotate", "sizes": [90]}]})
    with pytest.raises(EdgeError, match=r"got rotate, expected resize, resize_shorter, .*square_pad"):
        Manifest.read(folder)


def test_an_unknown_normalisation_is_not_guessed(bundle):
    folder, made = bundle
    content = json.loads((folder / "manifest.json").read_text())
    content["post_processing"]["normalization"] = "tanh"
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(EdgeError, match="got 'tanh', expected one of none, linear, softsign"):
        Manifest.read(folder)
    assert made.post_processing.normalization == "softsign"
