"""A few-shot model gets another support on the device, with the scores and the threshold of the training's code."""

import csv
import json
import re
import shutil

import pytest
import torch
from PIL import Image

from anomalib_medical.data.few_shot.support import read_normals
from anomalib_medical.data.images import read_image
from anomalib_medical.deploy.checkpoint import load_model
from tests.helpers.edge_bundles import on_device
from tests.helpers.exports import TOLERANCE
from tests.helpers.few_shot_tree import make_normals

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(bundles):
    """The checkpoint, and its bundle."""
    return bundles.checkpoint("D24fad"), bundles.bundle("D24fad")


@pytest.fixture
def bundle(made, tmp_path):
    """A copy, in which a support can be bound."""
    return shutil.copytree(made[1], tmp_path / "bundle")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    counts = {"support": 3, "normals": 5, "queries": 4}
    return {
        name: make_normals(folder / name, count, first_seed=100 * index)
        for index, (name, count) in enumerate(counts.items())
    }


def scores_of(bundle, folder, output):
    process = on_device(bundle, "run", folder, "--output", output)
    assert process.returncode == 0, process.stderr
    with (output / "predictions.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}, process.stderr


@pytest.mark.parametrize("with_normals", [True, False])
def test_a_new_support_is_bound_calibrated_and_kept(made, bundle, images, tmp_path, with_normals):
    options = ["--normals", images["normals"]] if with_normals else []
    before, _ = scores_of(bundle, images["queries"], tmp_path / "before")
    bound = on_device(bundle, "support", images["support"], *options)
    assert bound.returncode == 0, bound.stderr
    assert "Bound 3 support images" in bound.stderr
    model = load_model(made[0])
    model.set_support([read_image(path) for path in sorted(images["support"].rglob("*.png"))])
    model.recalibrate(read_normals(images["normals"], model.support_record) if with_normals else None)
    for attempt in range(2):  # another process, another start
        after, log = scores_of(bundle, images["queries"], tmp_path / f"after_{attempt}")
        assert "the 3 support images that were bound on this device" in log
        for path, row in after.items():
            with torch.no_grad():
                raw = model.model(model.pre_processor(read_image(path)[None]))
                score = model.post_processor(raw).pred_score
            assert float(row["raw_score"]) == pytest.approx(float(raw.pred_score), abs=TOLERANCE)
            assert float(row["score"]) == pytest.approx(float(score), abs=TOLERANCE)
            assert float(row["threshold"]) == pytest.approx(float(model.post_processor.image_threshold), abs=TOLERANCE)
            assert row["raw_score"] != before[path]["raw_score"]
    kept = " ".join(path.name for path in bundle.rglob("*")) + (bundle / "support" / "support.npz").read_text("latin1")
    assert not [path.name for path in images["support"].iterdir() if path.name in kept]


def test_the_threshold_that_is_told_is_the_one_that_is_used(bundle, images, tmp_path):
    """A sensitivity moves it."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["post_processing"]["image"]["limit"] = 0.75
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    bound = on_device(bundle, "support", images["support"])
    rows, _ = scores_of(bundle, images["queries"], tmp_path / "after")
    (told,) = re.findall(r"threshold (\S+), from", bound.stderr)
    assert {f"{float(row['threshold']):.6g}" for row in rows.values()} == {told}


def test_a_support_is_replaced_only_on_request(bundle, images):
    assert on_device(bundle, "support", images["support"]).returncode == 0
    first = (bundle / "support" / "support.npz").read_bytes()
    again = on_device(bundle, "support", images["normals"])
    assert again.returncode == 2
    assert "A support set is bound already" in again.stderr
    assert (bundle / "support" / "support.npz").read_bytes() == first
    assert on_device(bundle, "support", images["normals"], "--replace").returncode == 0
    assert (bundle / "support" / "support.npz").read_bytes() != first


def test_what_cannot_be_bound_is_said(bundle, images, tmp_path):
    (tmp_path / "empty").mkdir()
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(next(images["support"].rglob("*.png")), one)
    unreadable = tmp_path / "unreadable"
    unreadable.mkdir()
    (unreadable / "DOE_JANE.png").write_text("no picture")
    for arguments, message in (
        ([unreadable], "support: image 1, in the order of their names, cannot be read: found text"),
        ([tmp_path / "empty"], "support: found no image in it"),
        ([tmp_path / "missing"], "support: found no such folder"),
        ([one], "Got 1 support image and no --normals"),
        ([images["support"], "--normals", one], "In --normals and in the support: 1 image"),
    ):
        process = on_device(bundle, "support", *arguments)
        assert process.returncode == 2
        assert message in process.stderr
        assert "DOE_JANE" not in process.stderr
    assert not (bundle / "support").exists()


def test_what_is_left_out_of_a_support_is_counted(bundle, images, tmp_path):
    folder = shutil.copytree(images["support"], tmp_path / "support")
    Image.new("L", (64, 64)).save(folder / "DOE_JANE.gif")
    process = on_device(bundle, "support", folder)
    assert process.returncode == 0, process.stderr
    assert "support: Left out 1 file that is no PNG" in process.stderr
    assert "DOE_JANE" not in process.stderr


def test_a_damaged_support_is_refused(bundle, images, tmp_path):
    assert on_device(bundle, "support", images["support"]).returncode == 0
    kept = bundle / "support" / "support.npz"
    kept.write_bytes(kept.read_bytes()[:1000])
    process = on_device(bundle, "run", images["queries"], "--output", tmp_path / "out")
    assert process.returncode == 2
    assert "is damaged" in process.stderr
    assert "--replace" in process.stderr


def test_other_models_have_no_support(images, scrd):
    process = on_device(scrd[1], "support", images["support"])
    assert process.returncode == 2
    assert "only D24fad binds one" in process.stderr
