"""D2-4FAD on a device without torch: another support is bound there, with the scores of the trained model."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.edge.few_shot_device import FewShotDevice

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
SHOTS = 3


def pictures(count, seed, size):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


SUPPORT = [*pictures(2, 1, (64, 64)), *pictures(1, 2, (90, 132))]
QUERIES = [*pictures(2, 3, (64, 64)), *pictures(1, 4, (50, 40))]


@pytest.fixture(scope="module")
def model(bundles):
    return load_model(bundles.checkpoint("D24fad"))


@pytest.fixture(scope="module")
def edge(bundles):
    """The folder of the graphs in a bundle."""
    return bundles.bundle("D24fad") / "model"


def expected(model, support):
    model.set_support(support)
    model.recalibrate()
    with torch.no_grad():
        results = [model.model(model.pre_processor(query[None])) for query in QUERIES]
    return (
        [float(result.pred_score) for result in results],
        [result.anomaly_map.squeeze().numpy() for result in results],
        float(model.post_processor.image_threshold),
    )


def test_without_torch_the_scores_are_those_of_the_model(model, edge, tmp_path):
    np.savez(tmp_path / "images.npz", **{f"support_{i}": image for i, image in enumerate(SUPPORT)})
    np.savez(tmp_path / "queries.npz", **{f"query_{i}": image for i, image in enumerate(QUERIES)})
    script = textwrap.dedent(
        f"""
        import json, sys

        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {{"torch", "anomalib", "anomalib_medical", "lightning"}}:
                    raise ImportError(name + " is not on this device")

        sys.meta_path.insert(0, NoTorch())
        sys.path.insert(0, {str(edge.parent)!r})
        import numpy as np
        from runtime.edge.few_shot_device import FewShotDevice

        device = FewShotDevice({str(edge)!r})
        support = np.load({str(tmp_path / "images.npz")!r})
        queries = np.load({str(tmp_path / "queries.npz")!r})
        device.bind([support[name] for name in support])
        threshold = device.calibrate()
        results = [device.score(queries[name]) for name in queries]
        np.savez({str(tmp_path / "maps.npz")!r}, *[each[1] for each in results])
        print(json.dumps([[each[0] for each in results], threshold, "torch" in sys.modules]))
        """
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    scores, threshold, has_torch = json.loads(run.stdout.splitlines()[-1])
    assert not has_torch
    own_scores, own_maps, own_threshold = expected(model, SUPPORT)
    np.testing.assert_allclose(scores, own_scores, rtol=0, atol=TOLERANCE)
    assert threshold == pytest.approx(own_threshold, abs=TOLERANCE)
    assert np.ptp(own_scores) > 10 * TOLERANCE
    maps = np.load(tmp_path / "maps.npz")
    for name, own in zip(maps, own_maps, strict=True):
        np.testing.assert_allclose(maps[name], own, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_any_number_of_support_images_can_be_bound(model, edge, shots):
    device = FewShotDevice(edge)
    support = list(pictures(shots, 9, (70, 64)))
    device.bind([image.numpy() for image in support])
    assert len(device) == shots
    model.set_support(support)
    with torch.no_grad():
        own = float(model.model(model.pre_processor(QUERIES[0][None])).pred_score)
    assert device.score(QUERIES[0].numpy())[0] == pytest.approx(own, abs=TOLERANCE)


def test_the_devices_threshold(edge):
    device = FewShotDevice(edge)
    with pytest.raises(ValueError, match="No support is bound: call bind"):
        device.score(QUERIES[0].numpy())
    with pytest.raises(ValueError, match="Got no normal images and 0 support images"):
        device.calibrate()
    device.bind([image.numpy() for image in SUPPORT])
    normals = [image.numpy() for image in pictures(5, 7, (64, 64))]
    scores = sorted(device.score(image)[0] for image in normals)
    assert device.calibrate(normals, target_specificity=0.5) == pytest.approx(scores[2])
    assert device.calibrate(normals) == pytest.approx(scores[-1])
    device.bind([SUPPORT[0].numpy()])
    assert np.isnan(device.threshold)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "The support set has 0 images"),
        ([np.zeros((64, 64, 3), np.float32)], r"shape \(64, 64, 3\), expected \(3, height, width\)"),
        ([np.full((3, 8, 8), 255, np.uint8)], r"values in \[0, 1\]"),
    ],
)
def test_what_is_no_image_is_refused(edge, images, message):
    with pytest.raises(ValueError, match=message):
        FewShotDevice(edge).bind(images)
