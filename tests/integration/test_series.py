"""From held-out normal volumes to series that are judged alike by the engine and on the box, maps included."""

import csv
import json

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from anomalib_medical.cli import main as cli
from anomalib_medical.edge.manifest import Manifest
from tests.helpers.bundles import MODELS, train
from tests.helpers.edge_bundles import on_device
from tests.helpers.nifti_files import save_nifti

VOLUMES = 24
# Turned, and stored in another order than right, anterior, superior.
TURNED = np.array([[0, -1, 0], [np.cos(0.2), 0, -np.sin(0.2)], [np.sin(0.2), 0, np.cos(0.2)]])
AFFINE = np.vstack([np.column_stack([TURNED * [2, 1.5, 3], [30, -7, -20]]), [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Volumes of smooth noise to train on, and two to predict, one of them with a bright spot in one slice."""
    root, noise = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    for name in ("train/good", "new"):
        (root / name).mkdir(parents=True)

    def volume():
        coarse = noise.integers(60, 120, (9, 8, 3)).repeat(5, 0).repeat(5, 1)
        return (coarse + noise.integers(0, 8, coarse.shape)).astype(np.int16)

    for number in range(VOLUMES):
        save_nifti(root / "train" / "good" / f"v{number:02}.nii.gz", volume(), AFFINE)
    save_nifti(root / "new" / "DOE_plain.nii.gz", volume(), AFFINE)
    spot = volume()
    spot[10:26, 12:30, 1] = 1000
    save_nifti(root / "new" / "DOE_spot.nii.gz", spot, AFFINE)
    return root


@pytest.fixture(scope="module")
def checkpoint(folder, tmp_path_factory):
    return train(MODELS["Scrd"](), folder, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def predicted(folder, checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("predicted")
    command(
        *("predict", "--model", "Scrd", "--model.backbone", "resnet18", "--model.image_size", 64),
        *("--model.pre_trained", "false", "--ckpt_path", checkpoint, "--data", folder / "new"),
        *("--default_root_dir", output, "--trainer.accelerator", "cpu"),
    )
    (run,) = {path.parent for path in output.rglob("predictions.csv") if not path.parent.is_symlink()}
    return run


@pytest.fixture(scope="module")
def scored(folder, checkpoint, tmp_path_factory):
    root = tmp_path_factory.mktemp("box")
    command("bundle", "--ckpt_path", checkpoint, "--output", root / "bundle")
    process = on_device(root / "bundle", "run", folder / "new", "--output", root / "out")
    assert process.returncode == 0, process.stderr
    assert "DOE" not in process.stderr
    return root


def command(*words):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        cli.main([str(word) for word in words])


def rows_of(folder, stem):
    with (folder / f"{stem}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_checkpoint_and_the_bundle_carry_the_threshold_of_held_out_series(checkpoint, scored):
    groups = torch.load(checkpoint, weights_only=True)["anomalib_post_processor_config"]["groups"]
    facts = Manifest.read(scored / "bundle").post_processing
    assert facts.held_out_series == groups["series"]["held_out"] >= 2
    assert facts.series.threshold == groups["series"]["threshold"] == facts.image.maximum
    assert json.loads((scored / "bundle" / "manifest.json").read_text())["post_processing"]["series_top"] == 1
    assert "series" in (scored / "bundle" / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_the_engine_and_the_box_judge_series_alike(predicted, scored):
    by_engine, on_box = rows_of(predicted, "series"), rows_of(scored / "out", "series")
    assert len(by_engine) == len(on_box) == 2
    for engine, box in zip(by_engine, on_box, strict=True):
        assert (engine["label"], engine["slices"], engine["worst"]) == (box["label"], box["slices"], box["worst"])
        for name in ("raw_score", "score", "threshold"):
            assert float(engine[name]) == pytest.approx(float(box[name]), rel=1e-3)
    assert [row["label"] for row in rows_of(scored / "out", "patients")] == [row["label"] for row in on_box]
    slices = [
        row for row in rows_of(scored / "out", "predictions") if row["path"].partition("#")[0].endswith("spot.nii.gz")
    ]
    spot = next(row for row in on_box if "DOE_spot" in row["worst"])
    assert float(spot["raw_score"]) == max(float(row["raw_score"]) for row in slices)


@pytest.mark.slow
def test_the_maps_of_volumes_are_those_of_the_engine_in_the_same_physical_place(folder, predicted, scored):
    rows = rows_of(scored / "out", "series")
    for name in ("DOE_plain", "DOE_spot"):
        (series,) = [row["series"] for row in rows if name in row["worst"]]
        original = SimpleITK.ReadImage(str(folder / "new" / f"{name}.nii.gz"))
        for what in ("map", "mask"):
            (of_engine,) = predicted.rglob(f"{name}_{what}.nii.gz")
            on_box = scored / "out" / "volumes" / f"{series}_{what}.nii.gz"
            for path in (of_engine, on_box):
                made = SimpleITK.ReadImage(str(path))
                assert made.GetSize() == original.GetSize()
                for index in ((0, 0, 0), (44, 39, 2), (3, 20, 1)):
                    point = original.TransformIndexToPhysicalPoint(index)
                    assert made.TransformPhysicalPointToIndex(point) == index
            arrays = [nibabel.load(path).get_fdata() for path in (of_engine, on_box)]
            if what == "map":
                np.testing.assert_allclose(*arrays, atol=2e-3)
            else:
                assert (arrays[0] != arrays[1]).mean() < 0.01
