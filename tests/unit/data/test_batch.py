"""Fields of items and batches that the model fills."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from anomalib_medical.data.batch import MedicalImageBatch, MedicalImageItem, NumpyMedicalItem, collate

VALUES = torch.tensor([0.5, 2.0])


def scored() -> MedicalImageBatch:
    """A batch after the model's step."""
    batch = collate([MedicalImageItem(image=torch.zeros(3, 4, 4), image_path=f"{name}.png") for name in "ab"])
    assert batch.uncertainty is None
    assert batch.uncertainty_map is None
    return batch.update(uncertainty=VALUES, uncertainty_map=VALUES.reshape(2, 1, 1, 1).expand(2, 1, 4, 4).clone())


@pytest.mark.parametrize("masked", [0, 1])
def test_a_batch_has_masks_for_all_or_for_none(masked: int) -> None:
    items = [MedicalImageItem(image=torch.zeros(3, 4, 4), image_path=f"{name}.png") for name in "ab"]
    items[masked].gt_mask = torch.ones(4, 4, dtype=torch.bool)
    batch = collate(items)
    assert batch.gt_mask is None
    assert batch.mask_path == ["", ""]


def test_every_item_gets_its_own_uncertainty() -> None:
    for item, value in zip(scored(), VALUES, strict=True):
        assert isinstance(item, MedicalImageItem)
        assert item.uncertainty == value
        assert torch.equal(item.uncertainty_map, value.expand(1, 4, 4))


def test_items_without_uncertainty_have_none() -> None:
    batch = MedicalImageBatch(image=torch.zeros(2, 3, 4, 4))
    assert [(item.uncertainty, item.uncertainty_map) for item in batch] == [(None, None)] * 2


def test_uncertainty_is_collated() -> None:
    batch = collate(list(scored()))
    assert torch.equal(batch.uncertainty, VALUES)
    assert batch.uncertainty_map.shape == (2, 1, 4, 4)


@pytest.mark.parametrize("field", ["uncertainty", "uncertainty_map"])
def test_uncertainty_moves_with_the_batch(field: str) -> None:
    assert getattr(move_data_to_device(scored(), torch.device("meta")), field).is_meta


def test_numpy_twins() -> None:
    batch = scored().to_numpy()
    assert np.array_equal(batch.uncertainty, VALUES.numpy())
    assert isinstance(batch.uncertainty_map, np.ndarray)
    last = list(batch)[-1]
    assert isinstance(last, NumpyMedicalItem)
    assert last.uncertainty == 2
    assert (last.uncertainty_map == 2).all()
    assert next(iter(scored())).to_numpy().uncertainty == 0.5
