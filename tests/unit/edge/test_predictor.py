"""Graphs are run from several threads at a time, and a graph that cannot be loaded is named."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

import anomalib_medical
from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.geometry import WHOLE, Step
from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.predictor import GraphScorer, Predictor


def graph():
    """The mean as score, the first channel as map."""
    image = ops.parameter([1, 3, -1, -1], np.float32, name="input")
    score = ops.reduce_mean(image, ops.constant([0, 1, 2, 3]), keep_dims=False)
    score.output(0).set_names({"pred_score"})
    heat = ops.gather(image, ops.constant(0), ops.constant(1))
    heat.output(0).set_names({"anomaly_map"})
    return openvino.Model([score, heat], [image])


@pytest.mark.parametrize("many", [False, True])
def test_every_thread_gets_the_results_of_its_own_image(many):
    scorer = GraphScorer(graph(), many=many)
    images = [np.full((3, 8 + index, 9), index, np.float32) for index in range(60)]
    with ThreadPoolExecutor(6) as pool:  # more than there are requests
        results = list(pool.map(scorer.score, images))
    assert [score for score, _ in results] == pytest.approx(range(60))
    for (_, heat), image in zip(results, images, strict=True):
        np.testing.assert_array_equal(heat, image[0])
    assert scorer.workers >= 1


FIRST_AT_ONCE = """
import sys
from threading import Barrier, Thread
import openvino
from runtime.edge.few_shot_device import openvino_core

def ask():
    barrier.wait()
    openvino.Type.f32.to_dtype()  # as each inference does

openvino_core()
sys.setswitchinterval(1e-6)
barrier = Barrier(4)
threads = [Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_score_their_first_image_at_once_do_not_wait_for_each_other(tmp_path):
    # As in a bundle, without torch: it starts at once.
    package = Path(anomalib_medical.__file__).parent
    (tmp_path / "runtime").mkdir()
    for name in ("edge", "io"):
        (tmp_path / "runtime" / name).symlink_to(package / name)
    for _ in range(4):  # two in three such processes hung for ever
        subprocess.run([sys.executable, "-c", FIRST_AT_ONCE], cwd=tmp_path, check=True, timeout=60)


def test_openvino_tells_nobody_that_it_is_used(tmp_path):
    package = Path(anomalib_medical.__file__).parent
    (tmp_path / "runtime").mkdir()
    for name in ("edge", "io"):
        (tmp_path / "runtime" / name).symlink_to(package / name)
    script = (
        "import logging, sys, runtime.edge.predictor; assert not logging.getLogger().handlers; "
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)"
    )
    # Where no id can be kept, a warning came before the log was set up.
    environment = {**os.environ, "HOME": str(tmp_path / "none" / "at all")}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=60)


def test_a_graph_without_a_map_gives_none():
    whole = graph()
    scorer = GraphScorer(openvino.Model([whole.output("pred_score").get_node().input_value(0)], whole.get_parameters()))
    assert not scorer.has_map
    assert scorer.score(np.ones((3, 4, 5), np.float32)) == (1.0, None)


def test_a_graph_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "model.xml").write_text("no graph")
    with pytest.raises(EdgeError, match=r"OpenVINO .* cannot load model.xml \("):
        GraphScorer(tmp_path / "model.xml")


def test_each_map_is_placed_by_its_image_s_size():
    geometry = (Step("resize_shorter", (10,)), Step("center_crop", (10, 10)))
    predictor = Predictor(GraphScorer(graph()), PostProcessing(), geometry=geometry)
    wide, high = (predictor(np.zeros((3, *size), np.float32)).placed for size in ((10, 40), (40, 10)))
    assert wide.box == wide.seen == (0, 15 / 40, 1, 25 / 40)
    assert high.box == high.seen == (15 / 40, 0, 25 / 40, 1)
    assert Predictor(GraphScorer(graph()), PostProcessing())(np.zeros((3, 4, 5), np.float32)).placed == WHOLE
