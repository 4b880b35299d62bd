"""What cannot become a graph is refused in a sentence."""

import pytest
from anomalib.models import Padim

from anomalib_medical.benchmark.machine import measure_cost
from anomalib_medical.benchmark.records import Cost
from anomalib_medical.deploy.graph import raw_graph
from anomalib_medical.errors import MedicalError


class Unexported(Padim):
    """A model whose exports warn and return nothing, as AnomalyVFM's do."""

    def to_onnx(self, *_args, **_kwargs):
        return None

    def to_openvino(self, *_args, **_kwargs):
        return None


@pytest.fixture
def model():
    return Unexported(backbone="resnet18", pre_trained=False)


def test_a_model_without_an_export_is_not_bundled(model):
    with pytest.raises(MedicalError, match="Unexported has no export in anomalib"):
        raw_graph(model)


def test_a_model_without_an_export_has_no_latency_on_openvino(model):
    cost = measure_cost(Cost(), model, None, 1)
    assert cost.not_measured["latency.openvino"] == "NotImplementedError: Unexported has no export in anomalib"
