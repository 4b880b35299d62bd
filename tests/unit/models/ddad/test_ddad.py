"""DDAD's Lightning module, without a training."""

import math
from types import SimpleNamespace

import pytest
import torch

from anomalib_medical import Ddad
from anomalib_medical.data.batch import MedicalImageBatch


def test_the_uncertaintys_scale_is_that_of_normal_images():
    model = Ddad(image_size=16, members=2, score="intra", seed=0).eval()
    pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        largest = model.model.maps(pictures).intra.amax(dim=(1, 2, 3))
        order = largest.argsort()
        model.on_validation_epoch_start()
        # The abnormal image, which is the least certain, comes last.
        for rows in order.split(2):
            labels = torch.tensor([int(row == order[-1]) for row in rows])
            model.validation_step(MedicalImageBatch(image=pictures[rows], gt_label=labels))
        model.on_validation_epoch_end()
    normal, abnormal = largest[order[-2:]].tolist()
    assert normal < abnormal
    assert abs(model.uncertainty_scale - normal) < 1e-6


@pytest.mark.parametrize(
    ("own", "others", "found"), [(0.25, 0.5, 0.5), (0.75, 0.5, 0.75), (math.nan, 0.5, 0.5), (math.nan, -math.inf, None)]
)
def test_the_largest_uncertainty_is_that_of_all_processes(own, others, found):
    def reduce(value, reduce_op):
        assert reduce_op == "max"
        return value.maximum(torch.tensor(others))

    model = Ddad(image_size=16, members=2, score="intra")
    model._trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce))
    model._uncertainty_scale.fill_(own)
    model.on_validation_epoch_end()
    assert model.uncertainty_scale == found
