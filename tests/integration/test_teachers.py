"""Teachers of other families than the papers': a training, its checkpoint, exports and a bundle of each."""

import pytest
import torch

from anomalib_medical import D24fad, Scrd
from anomalib_medical.cli import main as cli
from tests.helpers.bundles import save_few_shot, train
from tests.helpers.edge_bundles import on_device
from tests.helpers.exports import NATIVE, ODD, assert_equal_results, by_engine, by_export, export_all, images

FAMILIES = ["resnet18", "wide_resnet50_2", "tf_efficientnet_lite0", "mobilenetv3_large_100"]
FAMILIES += ["convnext_tiny", "vit_tiny_patch16_224"]
SMALL = {"tf_efficientnet_lite0"}  # the others take half a minute each


def _marked(names):
    rarely = [pytest.mark.slow, pytest.mark.nightly]
    return [name if name in SMALL else pytest.param(name, marks=rarely) for name in names]


@pytest.fixture(scope="module", params=_marked(FAMILIES))
def scrd(request, tiny_folder, tmp_path_factory):
    """A model, the weights its decoder began with, and its checkpoint."""
    model = Scrd(backbone=request.param, image_size=64, pre_trained=False, seed=0)
    before = {key: value.clone() for key, value in model.model.decoder.state_dict().items()}
    return model, before, train(model, tiny_folder, tmp_path_factory.mktemp("run"))


def test_scrd_learns_from_any_teacher_and_leaves_as_a_graph(scrd, tmp_path):
    model, before, checkpoint = scrd
    assert any(not torch.equal(before[key], value) for key, value in model.model.decoder.state_dict().items())
    again = Scrd.load_from_checkpoint(checkpoint)
    assert again.model.teacher.layers == model.model.teacher.layers
    exported = export_all(again.eval(), tmp_path)
    for kind in exported:
        for size in (NATIVE, ODD):
            batch = images(size)
            assert_equal_results(by_engine(model.eval(), batch), by_export(exported, kind, batch))


@pytest.mark.slow
@pytest.mark.nightly  # of the graph above, as of any other
@pytest.mark.usefixtures("here")
def test_its_bundle_runs_on_a_device(scrd, tiny_folder, tmp_path):
    cli.main(["bundle", "--ckpt_path", str(scrd[2]), "--output", "edge"])
    done = on_device(tmp_path / "edge", "run", tiny_folder / "test", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backbone", _marked(["tf_efficientnet_lite0", "convnext_tiny", "vit_tiny_patch16_224"]))
def test_d24fad_compares_with_any_teacher(backbone, tmp_path):
    model = D24fad(backbone=backbone, image_size=64, pre_trained=False, seed=0)
    again = D24fad.load_from_checkpoint(save_few_shot(tmp_path, support=3, model=model)).eval()
    exported = export_all(again, tmp_path)
    batch = images(NATIVE)
    for kind in exported:
        assert_equal_results(by_engine(model.eval(), batch), by_export(exported, kind, batch))
