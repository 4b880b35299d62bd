"""Our datamodules and models in anomalib's tiled ensembles."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.pipelines.tiled_ensemble.components.utils.helper_functions import (
    drop_resize_transform,
    get_ensemble_datamodule,
    get_ensemble_tiler,
)
from torchvision.transforms.v2 import Normalize

from anomalib_medical import D24fad, Ddad, MedicalFolder, Scrd
from anomalib_medical.data.batch import MedicalImageItem, collate_masked
from tests.conftest import make_folder

TILES = {"tile_size": 16, "stride": 16, "image_size": 32}
_RESNET = {"backbone": "resnet18", "image_size": 64, "pre_trained": False}


def tile(root, index, **kwargs):
    """The datamodule that anomalib makes for one place in the images."""
    init_args = {"root": str(root), "num_workers": 0, "eval_batch_size": 8, "test_split_mode": "from_dir"}
    config = {"class_path": "MedicalFolder", "init_args": init_args | kwargs}
    return get_ensemble_datamodule(config, TILES["image_size"], get_ensemble_tiler(TILES), index)


def test_a_batch_holds_one_tile_of_images_and_masks_and_all_our_fields(tmp_path):
    root = make_folder(tmp_path, size=32)
    whole = MedicalFolder(root, num_workers=0, eval_batch_size=8)
    whole.setup()
    (expected,) = whole.test_dataloader()
    (batch,) = tile(root, (0, 1)).test_dataloader()
    torch.testing.assert_close(batch.image, expected.image[..., :16, 16:])
    torch.testing.assert_close(batch.gt_mask, expected.gt_mask[..., :16, 16:])
    assert batch.patient_id == expected.patient_id
    assert batch.image_path == expected.image_path


def test_the_unlabeled_pool_stays_known_as_such(tmp_path):
    data = tile(make_folder(tmp_path, layout={"train/good": 4, "test/lesion": 2, "unlabeled": 3}), (1, 1))
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(uses_unlabeled=True))
    (batch,) = data.train_dataloader()
    pool = [Path(path).parent.name == "unlabeled" for path in batch.image_path]
    assert sum(pool) == 3
    assert batch.known_normal.tolist() == [not each for each in pool]


def test_images_without_masks_are_refused_by_name(tmp_path):
    data = tile(make_folder(tmp_path, layout={"train/good": 4, "test/good": 1, "test/other": 1}), (0, 0))
    with pytest.raises(ValueError, match=r"2 of the 2 images of a batch.*: add masks, or train without tiles"):
        next(iter(data.test_dataloader()))


def test_an_image_that_has_a_mask_is_not_named_for_lacking_one():
    items = [
        MedicalImageItem(image=torch.zeros(3, 4, 4), image_path=path, gt_mask=mask)
        for path, mask in (("has.png", torch.zeros(4, 4)), ("lacks.png", None))
    ]
    with pytest.raises(ValueError, match=r"1 of the 2 images of a batch, such as lacks\.png\."):
        collate_masked(items)


@pytest.mark.parametrize(
    "model",
    [Scrd(**_RESNET), Ddad(image_size=32), D24fad(**_RESNET), D24fad(**_RESNET, normalize=False)],
    ids=["Scrd", "Ddad", "D24fad", "D24fad, not normalised"],
)
def test_the_ensembles_own_size_takes_the_place_of_the_models_resize(model):
    drop_resize_transform(model.pre_processor)
    left = model.pre_processor.transform
    assert left is None or [type(part) for part in left.transforms] == [Normalize]


def test_another_test_than_the_folders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="test_split_mode is 'synthetic', expected 'from_dir'"):
        MedicalFolder(tmp_path, test_split_mode="synthetic")
